import MachineModel
import Synchronization

/// A clock that moves only when a test moves it. Timers fire in order of their deadlines, on the thread that moves the
/// clock, each seeing `now` at its own deadline.
public final class ManualClock: VMClock {
    private struct Alarm {
        var deadline: UInt64
        /// Orders timers that are due at the same time: the one armed first fires first.
        var sequence: UInt64
        var fire: @Sendable () -> Void
    }

    private struct State {
        var now: UInt64
        /// `wallClock` minus `now`.
        var wallClockOffset: Int64
        var alarms: [ObjectIdentifier: Alarm] = [:]
        var sequence: UInt64 = 0

        mutating func arm(_ timer: Timer, at deadline: UInt64) {
            sequence += 1
            alarms[ObjectIdentifier(timer)] = Alarm(deadline: deadline, sequence: sequence, fire: timer.fire)
        }
    }

    /// Guards time and armed timers; never held while a timer fires.
    private let state: Mutex<State>

    /// `now` in nanoseconds; `wallClock` in nanoseconds since 1970, by default 2024-02-29 12:34:56 UTC, a Thursday.
    public init(now: UInt64 = 0, wallClock: Int64 = 1_709_210_096_000_000_000) {
        state = Mutex(State(now: now, wallClockOffset: wallClock &- Int64(bitPattern: now)))
    }

    public var now: UInt64 { state.withLock { $0.now } }

    public var wallClock: Int64 { state.withLock { $0.wallClockOffset &+ Int64(bitPattern: $0.now) } }

    /// Timers that are armed.
    public var armedTimers: Int { state.withLock { $0.alarms.count } }

    /// When the next timer fires, or nil if none is armed.
    public var nextDeadline: UInt64? { state.withLock { $0.alarms.values.map(\.deadline).min() } }

    public func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer {
        Timer(clock: self, fire: fire)
    }

    /// Moves the clock on by `nanoseconds`, firing all timers that come due on the way.
    public func advance(by nanoseconds: UInt64) {
        advance(to: now + nanoseconds)
    }

    /// Moves the clock to `time`, firing all timers that come due on the way; timers due now fire even if it does not
    /// move.
    public func advance(to time: UInt64) {
        while let fire = nextDue(until: time) { fire() }
        state.withLock { $0.now = max($0.now, time) }
    }

    /// Moves the clock on by `nanoseconds` without a timer's firing: the thread that would serve them is late.
    public func pass(_ nanoseconds: UInt64) { state.withLock { $0.now += nanoseconds } }

    /// Sets the wall clock without moving `now`, as an administrator of the host does.
    public func setWallClock(_ nanoseconds: Int64) {
        state.withLock { $0.wallClockOffset = nanoseconds &- Int64(bitPattern: $0.now) }
    }

    private func nextDue(until time: UInt64) -> (@Sendable () -> Void)? {
        state.withLock { state in
            let due = state.alarms.filter { $0.value.deadline <= time }
            let next = due.min { ($0.value.deadline, $0.value.sequence) < ($1.value.deadline, $1.value.sequence) }
            guard let next else { return nil }
            state.alarms[next.key] = nil
            state.now = max(state.now, next.value.deadline)
            return next.value.fire
        }
    }

    private final class Timer: VMTimer {
        let clock: ManualClock
        let fire: @Sendable () -> Void

        init(clock: ManualClock, fire: @escaping @Sendable () -> Void) {
            self.clock = clock
            self.fire = fire
        }

        deinit { cancel() }

        func arm(at deadline: UInt64) { clock.state.withLock { $0.arm(self, at: deadline) } }

        func cancel() { _ = clock.state.withLock { $0.alarms.removeValue(forKey: ObjectIdentifier(self)) } }
    }
}
