import MachineModel
import Synchronization

/// A watchdog timer as ACPI's WDAT table describes it to the guest (Microsoft, "Hardware Watchdog Timers Design Specification"): a guest that has
/// started it and does not reload it in time is taken to be dead.
///
/// Its registers are Davit's own, since the table says how to use them.
public final class Watchdog: PortDevice {
    /// Offsets from `PlatformLayout.Port.watchdog`.
    public enum Register {
        /// `Control`; one byte.
        public static let control: UInt16 = 0
        /// 1: it has expired since this was cleared, by writing 1; one byte.
        public static let status: UInt16 = 1
        /// Ticks that it counts down; a write reloads it. Two bytes.
        public static let preset: UInt16 = 2
        /// Ticks that are left; two bytes, read-only.
        public static let count: UInt16 = 4
        /// A write of anything reloads it; one byte.
        public static let reload: UInt16 = 6
    }

    public enum Control {
        public static let running: UInt8 = 1
        /// The guest wants its expiry to reset the machine. What it does is for the machine's owner to say.
        public static let resets: UInt8 = 2
    }

    /// Of a tick, in milliseconds.
    public static let tick: UInt64 = 100
    /// Least and most ticks.
    public static let counts: ClosedRange<UInt16> = 1...UInt16.max

    private struct Chip: Sendable {
        var control: UInt8 = 0
        var hasExpired: Bool
        var preset: UInt16 = 600
        /// Nanoseconds on the clock; only while it runs.
        var deadline: UInt64 = 0
        var timer: (any VMTimer)?

        var isRunning: Bool { control & Control.running != 0 }
        /// Of the whole count, in nanoseconds.
        var period: UInt64 { UInt64(max(preset, 1)) * Watchdog.tick * 1_000_000 }
    }

    private let clock: any VMClock
    private let isHeld: @Sendable () -> Bool
    private let expire: @Sendable () -> Void
    /// Guards the registers; held while the timer is armed.
    private let chip: Mutex<Chip>

    /// `hasExpired`: it has, and so the machine has been reset. `isHeld` says that the guest's processors stand, by no fault of the
    /// guest's: then its time begins anew. `expire` is called on the clock's thread.
    public init(
        clock: any VMClock, hasExpired: Bool = false, isHeld: @escaping @Sendable () -> Bool = { false },
        expire: @escaping @Sendable () -> Void
    ) {
        self.clock = clock
        self.isHeld = isHeld
        self.expire = expire
        chip = Mutex(Chip(hasExpired: hasExpired))
        let timer = clock.makeTimer { [weak self] in self?.timerFired() }
        chip.withLock { $0.timer = timer }
    }

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        chip.withLock { chip in
            switch (offset, width) {
            case (Register.control, .one): UInt32(chip.control)
            case (Register.status, .one): chip.hasExpired ? 1 : 0
            case (Register.preset, .two): UInt32(chip.preset)
            case (Register.count, .two): UInt32(ticksLeft(chip))
            default: 0
            }
        }
    }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        chip.withLock { chip in
            switch (offset, width) {
            case (Register.control, .one):
                let wasRunning = chip.isRunning
                chip.control = UInt8(truncatingIfNeeded: value) & (Control.running | Control.resets)
                if chip.isRunning != wasRunning { reload(&chip) }
            case (Register.status, .one):
                if value & 1 != 0 { chip.hasExpired = false }
            case (Register.preset, .two):
                chip.preset = UInt16(truncatingIfNeeded: value)
                reload(&chip)
            case (Register.reload, .one): reload(&chip)
            default: break
            }
        }
    }

    private func ticksLeft(_ chip: Chip) -> UInt16 {
        let now = clock.now
        guard chip.isRunning, chip.deadline > now else { return chip.isRunning ? 0 : chip.preset }
        return UInt16(clamping: (chip.deadline - now) / (Self.tick * 1_000_000))
    }

    private func reload(_ chip: inout Chip) {
        guard chip.isRunning else {
            chip.timer?.cancel()
            return
        }
        chip.deadline = clock.now &+ chip.period
        chip.timer?.arm(at: chip.deadline)
    }

    private func timerFired() {
        let isHeld = isHeld()
        let isExpired = chip.withLock { chip in
            // It may have been reloaded since the timer was due.
            guard chip.isRunning, clock.now >= chip.deadline else { return false }
            if isHeld {
                reload(&chip)
                return false
            }
            chip.control &= ~Control.running
            chip.hasExpired = true
            return true
        }
        if isExpired { expire() }
    }
}
