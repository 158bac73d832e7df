import HostLinux
import MachineModel

// The machine's clock is the host's, stopped while the machine is paused.

extension MonotonicClock: VMClock {
    public func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer { makeAlarm(fire) }
}

extension MonotonicClock.Alarm: VMTimer {
    public func arm(at deadline: UInt64) { set(at: deadline) }
    public func cancel() { clear() }
}
