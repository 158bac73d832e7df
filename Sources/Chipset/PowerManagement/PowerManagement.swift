import MachineModel
import Synchronization

/// ACPI's fixed hardware (ACPI 6.5, 4.8): PM1 events and control, the PM timer and general-purpose events, at
/// `PlatformLayout.Port.powerManagement`.
///
/// The machine has no system management mode and is in ACPI mode from the start, so SCI_EN reads as one whatever is
/// written. S5 is the one sleep state; SLP_EN with another type does nothing. Left out: bus master and wake status,
/// which need sleep states.
public final class PowerManagement: PortDevice {
    struct Chip: Sendable {
        /// PM1_STS without TMR_STS.
        var status: UInt16 = 0
        var enable: UInt16 = 0
        var control: UInt16 = 0
        var gpeStatus: UInt16 = 0
        var gpeEnable: UInt16 = 0
        /// How often the timer's top bit had changed when TMR_STS was cleared last.
        var timerChangesSeen: UInt64 = 0
        var sciLevel = false
        var timer: (any VMTimer)?
    }

    private let sci: any IRQLine
    private let clock: any VMClock
    private let control: any MachineControl
    /// Guards everything that changes; held while SCI is set and the timer is armed.
    let chip = Mutex(Chip())

    /// `sci` is raised while an enabled event waits: level-triggered, active high.
    public init(sci: any IRQLine, clock: any VMClock, control: any MachineControl) {
        self.sci = sci
        self.clock = clock
        self.control = control
        let timer = clock.makeTimer { [weak self] in self?.timerFired() }
        let changes = timerChanges
        chip.withLock { chip in
            chip.timer = timer
            chip.timerChangesSeen = changes
        }
    }

    /// Someone presses the power button: the guest is asked to shut down. Returns whether it listens.
    @discardableResult
    public func pressPowerButton() -> Bool {
        chip.withLock { chip in
            chip.status |= PM1.pwrbtn
            update(&chip)
            return chip.enable & PM1.pwrbtn != 0
        }
    }

    /// Sets a bit of GPE0_STS, `number` from 0 to 15; the DSDT's `_Lxx` or `_Exx` of that number runs if the guest has
    /// it enabled.
    public func raiseGeneralPurposeEvent(_ number: Int) {
        precondition((0..<16).contains(number), "GPE0 has 16 events")
        chip.withLock { chip in
            chip.gpeStatus |= 1 << UInt16(number)
            update(&chip)
        }
    }

    // MARK: Ports

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        // The one register that guests read often.
        if offset == Register.pmTimer, width == .four { return UInt32(truncatingIfNeeded: timerValue) }
        return chip.withLock { chip in
            let ticks = ticks
            var value: UInt32 = 0
            for step in 0..<UInt16(width.rawValue) {
                value |= UInt32(byte(chip, at: offset &+ step, ticks: ticks)) &<< (8 &* UInt32(step))
            }
            return value
        }
    }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        let isOff = chip.withLock { chip in
            var isOff = false
            for step in 0..<UInt16(width.rawValue) {
                let byte = UInt16(truncatingIfNeeded: value &>> (8 &* UInt32(step))) & 0xFF
                if write(&chip, byte: byte, at: offset &+ step) { isOff = true }
            }
            update(&chip)
            return isOff
        }
        if isOff { control.report(.powerOff) }
    }

    private func byte(_ chip: Chip, at offset: UInt16, ticks: UInt64) -> UInt8 {
        let register: UInt16
        switch offset & ~1 {
        case Register.pm1Status: register = status(chip, changes: ticks >> Self.timerTopBit)
        case Register.pm1Enable: register = chip.enable
        case Register.pm1Control: register = chip.control | Control.sciEn
        case Register.pmTimer: register = UInt16(truncatingIfNeeded: ticks & Self.timerMask)
        case Register.pmTimer + 2: register = UInt16(truncatingIfNeeded: (ticks & Self.timerMask) >> 16)
        case Register.gpe0Status: register = chip.gpeStatus
        case Register.gpe0Enable: register = chip.gpeEnable
        default: return 0
        }
        return UInt8(truncatingIfNeeded: offset & 1 == 0 ? register : register >> 8)
    }

    /// Returns whether the byte switches the machine off.
    private func write(_ chip: inout Chip, byte: UInt16, at offset: UInt16) -> Bool {
        let isHigh = offset & 1 != 0
        let bits = isHigh ? byte << 8 : byte
        let others: UInt16 = isHigh ? 0x00FF : 0xFF00
        switch offset & ~1 {
        case Register.pm1Status:
            // Status bits are cleared by writing ones.
            chip.status &= ~bits
            if bits & PM1.tmr != 0 { chip.timerChangesSeen = timerChanges }
        case Register.pm1Enable:
            chip.enable = (chip.enable & others | bits) & PM1.enables
        case Register.pm1Control:
            chip.control = (chip.control & others | bits) & Control.stored
            return bits & Control.slpEn != 0 && Control.sleepType(bits) == PlatformLayout.ACPI.sleepTypeS5
        case Register.gpe0Status:
            chip.gpeStatus &= ~bits
        case Register.gpe0Enable:
            chip.gpeEnable = chip.gpeEnable & others | bits
        default:
            break
        }
        return false
    }

    // MARK: PM timer

    private static var timerMask: UInt64 { (1 << (timerTopBit + 1)) - 1 }

    /// Ticks since the machine was made.
    private var ticks: UInt64 { Frequency.ticks(in: clock.now, at: PlatformLayout.pmTimerFrequency) }

    private var timerValue: UInt64 { ticks & Self.timerMask }

    /// How often the timer's top bit has changed.
    private var timerChanges: UInt64 { ticks >> Self.timerTopBit }

    private func timerFired() {
        chip.withLock { chip in update(&chip) }
    }

    // MARK: SCI

    private func status(_ chip: Chip, changes: UInt64) -> UInt16 {
        chip.status | (changes != chip.timerChangesSeen ? PM1.tmr : 0)
    }

    /// Brings SCI to where the registers say, and arms the timer for the next change of TMR_STS if someone waits for
    /// it.
    func update(_ chip: inout Chip) {
        let changes = timerChanges
        let status = status(chip, changes: changes)
        let level = status & chip.enable != 0 || chip.gpeStatus & chip.gpeEnable != 0
        if level != chip.sciLevel {
            chip.sciLevel = level
            sci.set(level)
        }
        if chip.enable & PM1.tmr != 0, status & PM1.tmr == 0 {
            let tick = (changes &+ 1) << Self.timerTopBit
            chip.timer?.arm(at: Frequency.time(of: tick, at: PlatformLayout.pmTimerFrequency))
        } else {
            chip.timer?.cancel()
        }
    }
}
