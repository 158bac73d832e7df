/// The guest's time: nanoseconds since the machine was made, standing still while it is paused. Any thread may call.
public protocol VMClock: AnyObject, Sendable {
    /// Nanoseconds.
    var now: UInt64 { get }
    /// Wall-clock time at `now`, nanoseconds since 1970 (UTC).
    var wallClock: Int64 { get }
    /// A timer, not armed. `fire` runs on the clock's own thread, without any lock held, and must not block for long.
    func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer
}

/// A one-shot timer on a `VMClock`.
public protocol VMTimer: AnyObject, Sendable {
    /// Fires once when the clock reaches `deadline` (nanoseconds), at once if that is past. Replaces an earlier deadline.
    func arm(at deadline: UInt64)
    /// After it returns no new call of `fire` begins; one under way may still be running.
    func cancel()
}
