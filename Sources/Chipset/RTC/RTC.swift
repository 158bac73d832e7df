import MachineModel
import Synchronization

/// The real-time clock and CMOS RAM of a PC at ports 0x70 and 0x71: Motorola's MC146818A (data sheet of 1984) with 128
/// bytes.
///
/// It shows the host's wall-clock time in UTC until the guest sets it, and keeps the difference from then on. Modelled:
/// BCD and binary, 12 and 24 hours, update in progress, alarm, periodic and update-ended interrupts, status C, stopping
/// by SET and by the divider. Left out: daylight saving (DSE is kept and ignored), the square wave, other crystals, and
/// NMI, whose mask bit is kept.
public final class RTC: BytePortDevice {
    private let irq: any IRQLine
    let clock: any VMClock
    /// Guards everything that changes; held while the interrupt line is set and the timer is armed.
    let chip = Mutex(Chip())

    /// Sizes of RAM in bytes, for the bytes in which firmware notes them.
    public init(irq: any IRQLine, clock: any VMClock, memoryBelow4G: UInt64, memoryAbove4G: UInt64) {
        self.irq = irq
        self.clock = clock
        let timer = clock.makeTimer { [weak self] in self?.timerFired() }
        chip.withLock { chip in
            chip.timer = timer
            chip.noteMemory(below4G: memoryBelow4G, above4G: memoryAbove4G)
            chip.lastSecond = chip.time(at: clock.wallClock).seconds
            chip.lastTick = chip.tick(at: clock.now)
        }
    }

    /// As the RESET pin does: interrupts off, while time and RAM stay, for they have a battery. A machine that makes its chips anew at
    /// each reset lets the new RTC restore the old one's state, and resets it then.
    public func reset() {
        chip.withLock { chip in
            catchUp(&chip)
            chip.b &= ~(B.pie | B.aie | B.uie | B.sqwe)
            chip.flags = 0
            chip.index = 0
            update(&chip)
        }
    }

    /// What stands in CMOS RAM at `index`, below 128, without the side effects of a guest's read.
    public func cmos(at index: Int) -> UInt8 {
        precondition((0..<Self.size).contains(index), "CMOS RAM has 128 bytes")
        return chip.withLock { $0.ram[index] }
    }

    func readByte(offset: UInt16) -> UInt8 {
        // The index cannot be read back.
        guard offset == 1 else { return 0xFF }
        return chip.withLock { chip in read(&chip) }
    }

    func writeByte(offset: UInt16, value: UInt8) {
        chip.withLock { chip in
            switch offset {
            case 0: chip.index = value
            case 1: write(&chip, value)
            default: break
            }
        }
    }

    // MARK: Registers

    private func read(_ chip: inout Chip) -> UInt8 {
        let register = Int(chip.index & ~Self.nmiMask)
        switch register {
        case Register.a:
            return chip.a | (isUpdateNear(chip) ? A.uip : 0)
        case Register.b:
            return chip.b
        case Register.c:
            catchUp(&chip)
            let flags = chip.flags | (chip.flags & chip.b != 0 ? C.irqf : 0)
            chip.flags = 0
            update(&chip)
            return flags
        case Register.d:
            return D.vrt
        default:
            if chip.isStopped { return chip.ram[register] }
            let time = CalendarTime(seconds: chip.time(at: clock.wallClock).seconds)
            return chip.field(register, of: time) ?? chip.ram[register]
        }
    }

    private func write(_ chip: inout Chip, _ value: UInt8) {
        let register = Int(chip.index & ~Self.nmiMask)
        // What came before the write counts with the old registers.
        catchUp(&chip)
        switch register {
        case Register.a:
            change(&chip) { $0.a = value & ~A.uip }
            chip.lastTick = chip.tick(at: clock.now)
        case Register.b:
            // SET takes UIE back; the flag follows the enables that remain.
            change(&chip) { $0.b = value & B.set != 0 ? value & ~B.uie : value }
        case Register.c, Register.d:
            break
        case Register.secondsAlarm, Register.minutesAlarm, Register.hoursAlarm:
            chip.ram[register] = value
        case _ where Chip.timeRegisters.contains(register) && !chip.isStopped:
            // Written while time runs: that byte changes, the others and the fraction of the second go on.
            let wallClock = clock.wallClock
            let time = chip.time(at: wallClock)
            chip.freeze(at: time.seconds)
            chip.ram[register] = value
            chip.thaw(at: wallClock, nanoseconds: time.nanoseconds)
        default:
            chip.ram[register] = value
        }
        update(&chip)
    }

    /// Changes A or B, and stops or starts the clock if that is what it means.
    private func change(_ chip: inout Chip, _ body: (inout Chip) -> Void) {
        let wallClock = clock.wallClock
        let time = chip.time(at: wallClock)
        let wasStopped = chip.isStopped
        // The data mode may change with the same write: time is written down in the new one.
        if !wasStopped {
            body(&chip)
            guard chip.isStopped else { return }
            chip.freeze(at: time.seconds)
            chip.wasDividerReset = false
        } else {
            body(&chip)
        }
        if chip.a & A.dv >= A.dvReset { chip.wasDividerReset = true }
        if wasStopped, !chip.isStopped {
            chip.thaw(at: wallClock, nanoseconds: chip.wasDividerReset ? 500_000_000 : time.nanoseconds)
        }
    }

    private func isUpdateNear(_ chip: Chip) -> Bool {
        !chip.isStopped && chip.time(at: clock.wallClock).nanoseconds >= 1_000_000_000 - Self.updateWarning
    }

    // MARK: Interrupts

    private func timerFired() {
        chip.withLock { chip in
            catchUp(&chip)
            update(&chip)
        }
    }

    func catchUp(_ chip: inout Chip) {
        chip.catchUp(wallClock: clock.wallClock, now: clock.now)
    }

    /// Brings the interrupt line to where the registers say, and arms the timer for what can change it.
    func update(_ chip: inout Chip) {
        let level = chip.flags & chip.b & C.flags != 0
        if level != chip.irqLevel {
            chip.irqLevel = level
            irq.set(level)
        }
        if let deadline = chip.nextEvent(wallClock: clock.wallClock, now: clock.now) {
            chip.timer?.arm(at: deadline)
        } else {
            chip.timer?.cancel()
        }
    }
}

extension RTC.Chip {
    /// Writes the sizes of RAM (bytes) as PC firmware does.
    fileprivate mutating func noteMemory(below4G: UInt64, above4G: UInt64) {
        func store(_ value: UInt64, at register: Int, bytes: Int) {
            let value = min(value, 1 << (8 * UInt64(bytes)) - 1)
            for step in 0..<bytes { ram[register + step] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(step))) }
        }
        let mebibyte: UInt64 = 1 << 20
        let extended = below4G > mebibyte ? (below4G - mebibyte) >> 10 : 0
        store(min(below4G >> 10, 640), at: RTC.Register.baseMemory, bytes: 2)
        store(extended, at: RTC.Register.extendedMemory, bytes: 2)
        store(extended, at: RTC.Register.measuredExtendedMemory, bytes: 2)
        store(below4G > 16 * mebibyte ? (below4G - 16 * mebibyte) >> 16 : 0, at: RTC.Register.memoryAbove16M, bytes: 2)
        store(above4G >> 16, at: RTC.Register.memoryAbove4G, bytes: 3)
        // A mathematics coprocessor.
        ram[RTC.Register.equipment] = 0x02
    }
}
