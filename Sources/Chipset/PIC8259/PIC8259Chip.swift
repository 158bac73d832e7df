/// One 8259A, without its bus: inputs, priorities and command words.
///
/// It begins as a PC's firmware leaves it, initialized and with every input masked: Linux tells from a mask register that keeps what is
/// written whether there is an 8259 at all, before it initializes anything.
struct PIC8259Chip: Equatable, Sendable, Codable {
    /// What the odd port expects next; `ready` means OCW1.
    enum Step: UInt8, Codable, Sendable {
        case icw2, icw3, icw4, ready
    }

    var irr: UInt8 = 0
    var isr: UInt8 = 0
    var imr: UInt8 = 0xFF
    /// Input levels.
    var lines: UInt8 = 0
    /// Inputs that are level-triggered by ELCR.
    var elcr: UInt8 = 0
    var step = Step.ready
    var icw1: UInt8 = 0
    /// The vector of input 0, a multiple of 8.
    var vectorBase: UInt8
    var icw4: UInt8 = 0
    /// The input with the lowest priority; the next one has the highest.
    var lowest: UInt8 = 7
    var specialMask = false
    var rotatesOnAEOI = false
    var readsISR = false
    /// The next read is a poll.
    var polls = false

    init(vectorBase: UInt8) { self.vectorBase = vectorBase }

    var levelTriggered: UInt8 { icw1 & ICW1.ltim != 0 ? 0xFF : elcr }

    // MARK: inputs

    /// A rising edge is latched until it is acknowledged, even if the line falls before that, so that a short pulse is not lost. (The chip would answer
    /// with a spurious IRQ 7.)
    mutating func setInput(_ input: UInt8, _ level: Bool) {
        let bit: UInt8 = 1 << (input & 7)
        if level {
            if levelTriggered & bit != 0 || lines & bit == 0 { irr |= bit }
            lines |= bit
        } else {
            if levelTriggered & bit != 0 { irr &= ~bit }
            lines &= ~bit
        }
    }

    mutating func setELCR(_ value: UInt8) {
        elcr = value
        let level = levelTriggered
        irr = irr & ~level | lines & level
    }

    // MARK: priorities

    /// The most urgent of `inputs` and its rank, 0 for the most urgent; rank 8 if there is none.
    private func first(of inputs: UInt8) -> (input: UInt8, rank: UInt8) {
        let top = (lowest &+ 1) & 7
        let rotated = inputs >> top | inputs << ((8 &- top) & 7)
        let rank = UInt8(truncatingIfNeeded: rotated.trailingZeroBitCount)
        return ((top &+ rank) & 7, rank)
    }

    /// The input whose interrupt is to be delivered, or nil. `cascade` is the input where another chip is attached: in special fully nested mode
    /// its interrupt in service does not hold off further ones.
    func request(cascade: UInt8? = nil) -> UInt8? {
        guard step == .ready else { return nil }
        let (input, rank) = first(of: irr & ~imr)
        guard rank < 8 else { return nil }
        var serving = isr
        // A masked input's interrupt in service holds nothing off in special mask mode.
        if specialMask { serving &= ~imr }
        if icw4 & ICW4.sfnm != 0, let cascade { serving &= ~(1 << cascade) }
        return rank < first(of: serving).rank ? input : nil
    }

    /// The INTA cycle for `input`.
    mutating func acknowledge(_ input: UInt8) {
        let bit: UInt8 = 1 << (input & 7)
        if levelTriggered & bit == 0 { irr &= ~bit }
        if icw4 & ICW4.aeoi != 0 {
            if rotatesOnAEOI { lowest = input & 7 }
        } else {
            isr |= bit
        }
    }

    func vector(_ input: UInt8) -> UInt8 { vectorBase | input & 7 }

    // MARK: ports

    mutating func writeEven(_ value: UInt8) {
        if value & ICW1.marker != 0 {
            initialize(value)
        } else if value & OCW3.marker != 0 {
            if value & OCW3.esmm != 0 { specialMask = value & OCW3.smm != 0 }
            if value & OCW3.poll != 0 { polls = true }
            switch value & OCW3.readRegister {
            case OCW3.readIRR: readsISR = false
            case OCW3.readISR: readsISR = true
            default: break
            }
        } else {
            operate(value)
        }
    }

    mutating func writeOdd(_ value: UInt8) {
        switch step {
        case .icw2:
            vectorBase = value & 0xF8
            step = icw1 & ICW1.sngl == 0 ? .icw3 : icw1 & ICW1.ic4 != 0 ? .icw4 : .ready
        // How the pair is wired is fixed, whatever ICW3 says.
        case .icw3: step = icw1 & ICW1.ic4 != 0 ? .icw4 : .ready
        case .icw4:
            icw4 = value & ICW4.stored
            step = .ready
        case .ready: imr = value
        }
    }

    /// Reads the register at the even or odd port; a poll is the caller's.
    func read(odd: Bool) -> UInt8 { odd ? imr : readsISR ? isr : irr }

    /// ICW1: edge latches, mask and modes are cleared.
    private mutating func initialize(_ value: UInt8) {
        icw1 = value
        irr = lines & levelTriggered
        isr = 0
        imr = 0
        icw4 = 0
        lowest = 7
        specialMask = false
        rotatesOnAEOI = false
        readsISR = false
        polls = false
        step = .icw2
    }

    /// OCW2: end of interrupt and rotation.
    private mutating func operate(_ value: UInt8) {
        let level = value & 7
        switch value >> 5 {
        case 0: rotatesOnAEOI = false
        case 4: rotatesOnAEOI = true
        case 1: _ = endOfInterrupt()
        case 5: if let ended = endOfInterrupt() { lowest = ended }
        case 3: isr &= ~(1 << level)
        case 7:
            isr &= ~(1 << level)
            lowest = level
        case 6: lowest = level
        default: break
        }
    }

    /// The non-specific EOI: the most urgent interrupt in service ends. Special mask mode leaves masked ones alone.
    private mutating func endOfInterrupt() -> UInt8? {
        let (input, rank) = first(of: specialMask ? isr & ~imr : isr)
        guard rank < 8 else { return nil }
        isr &= ~(1 << input)
        return input
    }
}
