/// One of the 8254's three counters. Nothing ticks in it: output and count are computed from when it was started, in ticks of the input clock.
struct PITCounter: Equatable, Sendable, Codable {
    var mode: UInt8 = 0
    /// RW1 RW0 of the control word; 0 until the first one.
    var access: UInt8 = 0
    var isBCD = false
    var gate: Bool

    /// The count as written last; 0 stands for 65536, or 10000 in BCD.
    var countRegister: UInt16 = 0
    /// The low byte of a count whose high byte is to come.
    var writtenLow: UInt8?
    /// In ticks, once there is a count.
    var period: UInt64?
    /// When the counting element got its count.
    var start: UInt64 = 0
    /// In modes 2 and 3 a new count waits for the end of the cycle.
    var nextPeriod: UInt64?
    /// Ticks counted when the gate went low, while it is low (modes 0, 2, 3, 4).
    var heldAt: UInt64?
    /// Modes 1 and 5: the gate has started it.
    var isTriggered = false

    var latchedCount: UInt16?
    var latchedStatus: UInt8?
    /// The next read gives the high byte.
    var readsHigh = false

    init(gate: Bool) { self.gate = gate }

    private var modulus: UInt64 { isBCD ? 10_000 : 65_536 }
    private var isPeriodic: Bool { mode == 2 || mode == 3 }
    /// The gate starts the counter instead of letting it count.
    private var isTriggerMode: Bool { mode == 1 || mode == 5 }

    // MARK: counting

    /// Ticks counted since `start`, or nil if the counter does not run.
    private func elapsed(_ now: UInt64) -> UInt64? {
        guard period != nil, !isTriggerMode || isTriggered else { return nil }
        if let heldAt { return heldAt }
        // The counting element takes its count over one tick after the write.
        return now > start ? now &- start : 0
    }

    /// Takes over a waiting count whose time has come. To be called before anything else looks at the counter.
    mutating func advance(to now: UInt64) {
        guard isPeriodic, let next = nextPeriod, let period, heldAt == nil, let elapsed = elapsed(now) else { return }
        guard elapsed >= period else { return }
        start &+= period
        self.period = next
        nextPeriod = nil
    }

    /// OUT.
    func output(_ now: UInt64) -> Bool {
        guard let period, let elapsed = elapsed(now) else { return mode != 0 }
        switch mode {
        case 0, 1: return elapsed >= period
        case 2: return heldAt != nil || elapsed % period != period &- 1
        case 3: return heldAt != nil || elapsed % period < (period &+ 1) / 2
        default: return elapsed != period
        }
    }

    /// The first tick after `now` at which OUT rises, or nil if it does not.
    func nextRise(after now: UInt64) -> UInt64? {
        guard let period, let elapsed = elapsed(now), heldAt == nil else { return nil }
        switch mode {
        case 0, 1: return elapsed < period ? start &+ period : nil
        case 2, 3: return start &+ (elapsed / period &+ 1) &* period
        default: return elapsed <= period ? start &+ period &+ 1 : nil
        }
    }

    /// What the counting element holds.
    private func count(_ now: UInt64) -> UInt16 {
        guard let period, let elapsed = elapsed(now) else { return countRegister }
        let value: UInt64
        switch mode {
        case 2: value = period &- elapsed % period
        case 3:
            // Counts down by two, twice in a cycle.
            let high = (period &+ 1) / 2
            let position = elapsed % period
            value = (period & ~1) &- 2 &* (position < high ? position : position &- high)
        default: value = period &+ modulus &- elapsed % modulus
        }
        return encode(value % modulus)
    }

    private func encode(_ value: UInt64) -> UInt16 {
        guard isBCD else { return UInt16(truncatingIfNeeded: value) }
        return UInt16(
            truncatingIfNeeded: (value / 1000 % 10) << 12 | (value / 100 % 10) << 8 | (value / 10 % 10) << 4 | value
                % 10)
    }

    /// The number of ticks that a written count stands for. Digits above 9 count as what they weigh.
    private func decode(_ register: UInt16) -> UInt64 {
        let value = UInt64(register)
        let ticks =
            isBCD ? (value >> 12) &* 1000 &+ (value >> 8 & 15) &* 100 &+ (value >> 4 & 15) &* 10 &+ (value & 15) : value
        // In modes 2 and 3 a count of 1 is illegal; the chip's next cycle would be one tick too.
        return ticks == 0 ? modulus : ticks
    }

    // MARK: programming

    mutating func writeControl(_ word: UInt8) {
        mode = PITControl.mode(word)
        access = PITControl.access(word)
        isBCD = PITControl.isBCD(word)
        countRegister = 0
        writtenLow = nil
        period = nil
        nextPeriod = nil
        heldAt = nil
        isTriggered = false
        latchedCount = nil
        latchedStatus = nil
        readsHigh = false
    }

    mutating func write(_ value: UInt8, now: UInt64) {
        advance(to: now)
        switch access {
        case PITAccess.low: load(UInt16(value), now: now)
        case PITAccess.high: load(UInt16(value) << 8, now: now)
        case PITAccess.word:
            if let low = writtenLow {
                writtenLow = nil
                load(UInt16(value) << 8 | UInt16(low), now: now)
            } else {
                writtenLow = value
                // In mode 0 the first byte stops counting (data sheet, "Mode 0").
                if mode == 0 { period = nil }
            }
        default: break
        }
    }

    private mutating func load(_ register: UInt16, now: UInt64) {
        countRegister = register
        let ticks = decode(register)
        if isPeriodic, period != nil, heldAt == nil {
            nextPeriod = ticks
            return
        }
        period = ticks
        nextPeriod = nil
        // Modes 1 and 5 take it over at the next trigger; a run under way goes on to its end.
        guard !isTriggerMode else { return }
        start = now &+ 1
        heldAt = gate ? nil : 0
    }

    mutating func setGate(_ level: Bool, now: UInt64) {
        guard level != gate else { return }
        advance(to: now)
        let counted = elapsed(now)
        gate = level
        if isTriggerMode {
            guard level, period != nil else { return }
            isTriggered = true
            period = decode(countRegister)
            start = now &+ 1
        } else if level {
            guard let held = heldAt else { return }
            heldAt = nil
            // Modes 2 and 3 begin anew, 0 and 4 go on.
            start = isPeriodic ? now &+ 1 : now &- held
            if isPeriodic, let next = nextPeriod {
                period = next
                nextPeriod = nil
            }
        } else {
            heldAt = counted
        }
    }

    // MARK: reading

    mutating func latchCount(now: UInt64) {
        advance(to: now)
        // Until it is read, later latch commands are ignored.
        if latchedCount == nil { latchedCount = count(now) }
    }

    mutating func latchStatus(now: UInt64) {
        advance(to: now)
        guard latchedStatus == nil else { return }
        let isNull = period == nil || nextPeriod != nil || (heldAt == nil && now < start)
        latchedStatus =
            (output(now) ? PITStatus.output : 0) | (isNull ? PITStatus.nullCount : 0) | access << 4 | mode << 1
            | (isBCD ? 1 : 0)
    }

    mutating func read(now: UInt64) -> UInt8 {
        advance(to: now)
        if let status = latchedStatus {
            latchedStatus = nil
            return status
        }
        let value = latchedCount ?? count(now)
        let isHigh = access == PITAccess.high || (access == PITAccess.word && readsHigh)
        if access == PITAccess.word { readsHigh.toggle() }
        if access != PITAccess.word || isHigh { latchedCount = nil }
        return UInt8(truncatingIfNeeded: isHigh ? value >> 8 : value)
    }
}
