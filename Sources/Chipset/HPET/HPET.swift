// The high-precision event timers: IA-PC HPET Specification 1.0a (October 2004).
// Modelled: a 64-bit main counter at 100 MHz, three timers, one-shot and periodic, 32 and 64 bits wide, edge- and level-triggered, legacy
// replacement routing. Left out: FSB interrupt delivery, which the capability bits do not offer.

import MachineModel
import Synchronization

public final class HPET: MMIODevice {
    static let timerCount = 3
    /// A tick of the main counter, in nanoseconds.
    static let tick: UInt64 = 10
    /// How close to each other a timer's interrupts may come, in nanoseconds, whatever its period: it bounds what a guest can make the clock's
    /// thread do.
    static let shortestPeriod: UInt64 = 50_000

    struct Chip: Sendable {
        var configuration: UInt64 = 0
        /// Bits of level-triggered timers that have matched.
        var interruptStatus: UInt64 = 0
        /// The main counter as of `settledAt`.
        var counter: UInt64 = 0
        /// Nanoseconds, a multiple of `tick`.
        var settledAt: UInt64 = 0
        var timers = [HPETTimer](repeating: HPETTimer(), count: HPET.timerCount)
        var clockTimer: (any VMTimer)?
        /// No interrupt before this, in nanoseconds.
        var earliest: UInt64 = 0
        /// I/O APIC pins that level-triggered timers hold up.
        var raised: UInt32 = 0
        /// Legacy lines 0 and 8 that they hold up, by timer.
        var legacyRaised: [Bool] = [false, false]

        var isEnabled: Bool { configuration & HPETConfiguration.enable != 0 }
        var isLegacy: Bool { configuration & HPETConfiguration.legacy != 0 }
    }

    private let clock: any VMClock
    /// By I/O APIC pin 20-23.
    private let lines: [any IRQLine]
    /// IRQ 0 and IRQ 8, for legacy replacement.
    private let legacy: [LegacyLine]
    /// Guards everything that changes. Held while lines are set and the clock's timer is armed, neither of which call back.
    let chip = Mutex(Chip())

    /// `irq0` and `irq8` are the board's lines of those numbers: the PIT and the RTC are connected through `pitLine` and `rtcLine`, which
    /// are cut off while the HPET stands in for them. `line` gives the line to an I/O APIC pin.
    public init(irq0: any IRQLine, irq8: any IRQLine, line: (_ pin: Int) -> any IRQLine, clock: any VMClock) {
        self.clock = clock
        lines = (0..<32).filter { HPETTimerConfiguration.routes >> (32 + UInt64($0)) & 1 != 0 }.map(line)
        legacy = [LegacyLine(irq0), LegacyLine(irq8)]
        let timer = clock.makeTimer { [weak self] in self?.timerFired() }
        chip.withLock { $0.clockTimer = timer }
    }

    /// What the PIT drives in place of IRQ 0.
    public var pitLine: any MaskableIRQLine { legacy[0] }
    /// What the RTC drives in place of IRQ 8.
    public var rtcLine: any MaskableIRQLine { legacy[1] }

    // MARK: time

    private func timerFired() {
        chip.withLock { chip in
            settle(&chip)
            arm(&chip)
        }
    }

    /// Brings the counter up to now and carries out the matches on the way.
    func settle(_ chip: inout Chip) {
        let now = clock.now / Self.tick &* Self.tick
        let elapsed = now > chip.settledAt ? (now &- chip.settledAt) / Self.tick : 0
        chip.settledAt = now
        guard chip.isEnabled, elapsed > 0 else { return }
        for i in chip.timers.indices where chip.timers[i].advance(from: chip.counter, elapsed: elapsed) {
            match(&chip, i)
        }
        chip.counter &+= elapsed
    }

    private func match(_ chip: inout Chip, _ i: Int) {
        let timer = chip.timers[i]
        if timer.isLevel { chip.interruptStatus |= 1 << UInt64(i) }
        guard timer.isEnabled else { return }
        chip.earliest = clock.now &+ Self.shortestPeriod
        if timer.isLevel { return updateLevels(&chip) }
        if chip.isLegacy, i < 2 {
            legacy[i].pulse()
        } else if let line = line(timer) {
            line.set(true)
            line.set(false)
        }
    }

    /// The line that a timer's route names, if it is one of those offered.
    private func line(_ timer: HPETTimer) -> (any IRQLine)? {
        let index = HPETTimerConfiguration.route(timer.configuration) - 20
        return lines.indices.contains(index) ? lines[index] : nil
    }

    /// Brings lines to where the level-triggered timers want them.
    func updateLevels(_ chip: inout Chip) {
        var raised: UInt32 = 0
        var legacyRaised = [false, false]
        for (i, timer) in chip.timers.enumerated()
        where timer.isLevel && timer.isEnabled && chip.interruptStatus >> UInt64(i) & 1 != 0 {
            if chip.isLegacy, i < 2 {
                legacyRaised[i] = true
            } else {
                raised |= 1 << UInt32(HPETTimerConfiguration.route(timer.configuration))
            }
        }
        for (index, line) in lines.enumerated() where (raised ^ chip.raised) >> UInt32(index + 20) & 1 != 0 {
            line.set(raised >> UInt32(index + 20) & 1 != 0)
        }
        for i in 0..<2 where legacyRaised[i] != chip.legacyRaised[i] { legacy[i].setOwn(legacyRaised[i]) }
        chip.raised = raised
        chip.legacyRaised = legacyRaised
    }

    /// Arms the clock for the next match that somebody will see at once.
    func arm(_ chip: inout Chip) {
        var next = UInt64.max
        if chip.isEnabled {
            for (i, timer) in chip.timers.enumerated() where timer.isEnabled {
                // A level that is up stays up.
                if timer.isLevel, chip.interruptStatus >> UInt64(i) & 1 != 0 { continue }
                next = min(next, timer.distance(from: chip.counter))
            }
        }
        let (delay, overflow) = next.multipliedReportingOverflow(by: Self.tick)
        guard next != .max, !overflow else {
            chip.clockTimer?.cancel()
            return
        }
        let (deadline, late) = chip.settledAt.addingReportingOverflow(delay)
        if late { chip.clockTimer?.cancel() } else { chip.clockTimer?.arm(at: max(deadline, chip.earliest)) }
    }

    // MARK: registers

    /// Any part of an eight-byte register; an access over its end reads zeros there.
    public func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        let value = chip.withLock { chip in
            settle(&chip)
            return read(chip, offset & ~7)
        }
        return value >> ((offset & 7) &* 8) & width.mask
    }

    /// Four or eight bytes, aligned; the specification asks for no others.
    public func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width.bytes >= 4, offset & UInt64(width.bytes - 1) == 0 else { return }
        let shift = (offset & 7) &* 8
        let isReconnected = chip.withLock { chip in
            settle(&chip)
            let wasLegacy = chip.isLegacy
            write(&chip, offset & ~7, value << shift, mask: width.mask << shift)
            updateLevels(&chip)
            arm(&chip)
            return wasLegacy && !chip.isLegacy
        }
        if isReconnected { for line in legacy { line.notify() } }
    }

    func connectLegacyLines(_ chip: borrowing Chip) {
        for line in legacy { line.setCut(chip.isLegacy) }
    }

    private func timer(at offset: UInt64) -> (index: Int, register: UInt64)? {
        guard offset >= HPETRegister.timers else { return nil }
        let index = (offset &- HPETRegister.timers) / HPETRegister.timerStride
        guard index < UInt64(Self.timerCount) else { return nil }
        return (Int(index), (offset &- HPETRegister.timers) % HPETRegister.timerStride)
    }

    private func read(_ chip: borrowing Chip, _ offset: UInt64) -> UInt64 {
        switch offset {
        // The period is in femtoseconds.
        case HPETRegister.capabilities: return (Self.tick &* 1_000_000) << 32 | HPETCapabilities.low
        case HPETRegister.configuration: return chip.configuration
        case HPETRegister.interruptStatus: return chip.interruptStatus
        case HPETRegister.mainCounter: return chip.counter
        default: break
        }
        guard let (index, register) = timer(at: offset) else { return 0 }
        switch register {
        case HPETRegister.timerConfiguration:
            return chip.timers[index].configuration | HPETTimerConfiguration.capabilities
        case HPETRegister.timerComparator: return chip.timers[index].comparator & chip.timers[index].mask
        default: return 0
        }
    }

    private func write(_ chip: inout Chip, _ offset: UInt64, _ value: UInt64, mask: UInt64) {
        func merged(_ old: UInt64) -> UInt64 { old & ~mask | value & mask }
        switch offset {
        case HPETRegister.configuration:
            chip.configuration =
                merged(chip.configuration) & (HPETConfiguration.enable | HPETConfiguration.legacy)
            connectLegacyLines(chip)
        case HPETRegister.interruptStatus: chip.interruptStatus &= ~(value & mask)
        case HPETRegister.mainCounter: chip.counter = merged(chip.counter)
        default:
            guard let (index, register) = timer(at: offset) else { return }
            if register == HPETRegister.timerConfiguration {
                let configuration = merged(chip.timers[index].configuration) & HPETTimerConfiguration.writable
                chip.timers[index].configuration = configuration
                if !chip.timers[index].isLevel { chip.interruptStatus &= ~(1 << UInt64(index)) }
            } else if register == HPETRegister.timerComparator {
                writeComparator(&chip.timers[index], merged)
            }
        }
    }

    /// 2.3.9.2.2: in periodic mode the value is the period, and the first match too if VAL_SET was written before.
    private func writeComparator(_ timer: inout HPETTimer, _ merged: (UInt64) -> UInt64) {
        if !timer.isPeriodic || timer.configuration & HPETTimerConfiguration.setValue != 0 {
            timer.comparator = merged(timer.comparator) & timer.mask
        }
        if timer.isPeriodic { timer.period = merged(timer.period) & timer.mask }
        timer.configuration &= ~HPETTimerConfiguration.setValue
    }
}
