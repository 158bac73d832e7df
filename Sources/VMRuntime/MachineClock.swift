import HostLinux
import MachineModel

/// The machine's time as its devices see it: the host's monotonic clock, from the machine's making on.
final class MachineClock: VMClock {
    private let clock: MonotonicClock

    init() throws(SystemError) { clock = try MonotonicClock(threadName: "davit-clock") }

    var now: UInt64 { clock.now }
    var wallClock: Int64 { clock.wallClock }

    func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer { Timer(clock.makeAlarm(fire)) }

    /// Ends the clock's thread; timers fire no more.
    func shutDown() { clock.shutDown() }

    private final class Timer: VMTimer {
        private let alarm: MonotonicClock.Alarm

        init(_ alarm: MonotonicClock.Alarm) { self.alarm = alarm }

        func arm(at deadline: UInt64) { alarm.set(at: deadline) }
        func cancel() { alarm.clear() }
    }
}
