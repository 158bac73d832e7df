// The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet, December 1988), as the 82371SB south bridge has them,
// with its edge/level control registers.
// Modelled: ICW1-4, OCW1-3, fixed and rotating priorities, special mask, special fully nested and automatic EOI modes, poll, cascade,
// spurious interrupts. Left out: MCS-80 mode (ICW4's PM bit is ignored) and buffered mode, which a PC cannot tell apart.

import MachineModel
import Synchronization

/// The two 8259As: 15 inputs, IRQ 2 being the second chip's output.
public final class PIC8259: Sendable {
    /// The primary's input at which the secondary hangs.
    static let cascade: UInt8 = 2

    struct Pair: Sendable {
        var primary = PIC8259Chip(vectorBase: 0x08)
        var secondary = PIC8259Chip(vectorBase: 0x70)
        /// INTR as last told.
        var output = false
    }

    /// Guards both chips. Held while INTR is set, which takes no device's lock.
    let pair = Mutex(Pair())
    private let intr: @Sendable (Bool) -> Void
    /// Guards who is told when an input is unmasked; not held while they are.
    private let unmaskObserver = Mutex(UnmaskObserver())

    /// `intr` is the output to the CPU: `LocalAPICBus.setExternalInterrupt`. It is called with a lock held and must not call back.
    public init(intr: @escaping @Sendable (Bool) -> Void) { self.intr = intr }

    // MARK: inputs and output

    /// An edge or level at IRQ 0-15; 2 is taken by the cascade. Any thread.
    public func setInput(_ irq: Int, _ level: Bool) {
        guard (0..<16).contains(irq), irq != Int(Self.cascade) else { return }
        pair.withLock { pair in
            if irq < 8 {
                pair.primary.setInput(UInt8(irq), level)
            } else {
                pair.secondary.setInput(UInt8(irq - 8), level)
            }
            update(&pair)
        }
    }

    /// The INTA cycle: the vector of the most urgent request; IRQ 7's or 15's if it went away in between.
    public func acknowledge() -> UInt8 {
        pair.withLock { pair in
            defer { update(&pair) }
            guard let input = pair.primary.request(cascade: Self.cascade) else { return pair.primary.vector(7) }
            pair.primary.acknowledge(input)
            guard input == Self.cascade else { return pair.primary.vector(input) }
            guard let second = pair.secondary.request() else { return pair.secondary.vector(7) }
            pair.secondary.acknowledge(second)
            return pair.secondary.vector(second)
        }
    }

    /// Whether a request at `irq` cannot reach the CPU for its mask bits, or because a chip is being initialized.
    func isMasked(_ irq: Int) -> Bool {
        pair.withLock { pair in
            func isMasked(_ chip: PIC8259Chip, _ input: Int) -> Bool {
                chip.step != .ready || chip.imr >> UInt8(input & 7) & 1 != 0
            }
            return isMasked(pair.primary, irq < 8 ? irq : Int(Self.cascade))
                || (irq >= 8 && isMasked(pair.secondary, irq))
        }
    }

    /// Who is told, without locks, that mask bits may have been cleared.
    func observeUnmasking(_ body: (@Sendable () -> Void)?) { unmaskObserver.withLock { $0.call = body } }

    /// Carries the secondary's output to the primary and the primary's to the CPU.
    func update(_ pair: inout Pair) {
        // Not `setInput`: a second request that waits behind the first makes an edge of its own.
        if pair.secondary.request() != nil {
            pair.primary.irr |= 1 << Self.cascade
        } else {
            pair.primary.irr &= ~(1 << Self.cascade)
        }
        let output = pair.primary.request(cascade: Self.cascade) != nil
        guard output != pair.output else { return }
        pair.output = output
        intr(output)
    }

    // MARK: ports

    /// 0x20-0x21.
    public var primaryPorts: any PortDevice { Ports(pic: self, isPrimary: true) }
    /// 0xA0-0xA1.
    public var secondaryPorts: any PortDevice { Ports(pic: self, isPrimary: false) }
    /// 0x4D0-0x4D1, ELCR1 and ELCR2.
    public var edgeLevelPorts: any PortDevice { EdgeLevelPorts(pic: self) }

    private func read(isPrimary: Bool, odd: Bool) -> UInt8 {
        pair.withLock { pair in
            let path: WritableKeyPath<Pair, PIC8259Chip> = isPrimary ? \.primary : \.secondary
            guard pair[keyPath: path].polls else { return pair[keyPath: path].read(odd: odd) }
            // A poll acknowledges as an INTA does (data sheet, "Poll Command").
            pair[keyPath: path].polls = false
            guard let input = pair[keyPath: path].request(cascade: isPrimary ? Self.cascade : nil) else { return 0 }
            pair[keyPath: path].acknowledge(input)
            update(&pair)
            return 0x80 | input
        }
    }

    private func write(isPrimary: Bool, odd: Bool, value: UInt8) {
        pair.withLock { pair in
            let path: WritableKeyPath<Pair, PIC8259Chip> = isPrimary ? \.primary : \.secondary
            if odd { pair[keyPath: path].writeOdd(value) } else { pair[keyPath: path].writeEven(value) }
            update(&pair)
        }
        if odd { unmaskObserver.withLock { $0.call }?() }
    }

    private final class Ports: BytePortDevice {
        let pic: PIC8259
        let isPrimary: Bool

        init(pic: PIC8259, isPrimary: Bool) {
            self.pic = pic
            self.isPrimary = isPrimary
        }

        func readByte(offset: UInt16) -> UInt8 { offset < 2 ? pic.read(isPrimary: isPrimary, odd: offset == 1) : 0xFF }

        func writeByte(offset: UInt16, value: UInt8) {
            if offset < 2 { pic.write(isPrimary: isPrimary, odd: offset == 1, value: value) }
        }
    }

    private final class EdgeLevelPorts: BytePortDevice {
        let pic: PIC8259

        init(pic: PIC8259) { self.pic = pic }

        func readByte(offset: UInt16) -> UInt8 {
            switch offset {
            case 0: pic.pair.withLock { $0.primary.elcr }
            case 1: pic.pair.withLock { $0.secondary.elcr }
            default: 0xFF
            }
        }

        func writeByte(offset: UInt16, value: UInt8) {
            pic.pair.withLock { pair in
                switch offset {
                case 0: pair.primary.setELCR(value & ELCR.writable1)
                case 1: pair.secondary.setELCR(value & ELCR.writable2)
                default: return
                }
                pic.update(&pair)
            }
        }
    }
}
