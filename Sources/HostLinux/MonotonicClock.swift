import CDavit
import Glibc
import Synchronization

/// Time since the clock was made, in nanoseconds of CLOCK_MONOTONIC, that can be stopped; with alarms that a thread of its own fires.
///
/// The thread sleeps in a futex until the earliest alarm; with none set it does not wake. To set an alarm later than the one it sleeps for
/// does not wake it either, so that a timer which is moved again and again costs a store. Any thread may call.
public final class MonotonicClock: Sendable {
    /// A call at a given time.
    public final class Alarm: Sendable {
        private let clock: MonotonicClock
        private let slot: Int

        fileprivate init(clock: MonotonicClock, slot: Int) {
            self.clock = clock
            self.slot = slot
        }

        deinit { clock.free(slot) }

        /// Fires once when the clock reaches `deadline` (nanoseconds), at once if that is past. Replaces an earlier deadline.
        public func set(at deadline: UInt64) { clock.set(slot, deadline) }

        /// After it returns no new call begins; one under way may still be running.
        public func clear() { clock.clear(slot) }
    }

    private struct Slot {
        /// On this clock; `.max` is not set.
        var deadline = UInt64.max
        /// Nil while no alarm has the slot.
        var fire: (@Sendable () -> Void)?
    }

    private struct State {
        var slots: [Slot] = []
        var free: [Int] = []
        /// Until when the thread sleeps, on this clock: 0 while it is awake, `.max` without limit.
        var sleepsUntil: UInt64 = 0
        var isStopping = false
        var thread: HostThread?
    }

    /// Guards the alarms; not held while one fires.
    private let state = Mutex(State())
    /// The thread sleeps while this holds the number it read before; everybody who has news counts it up.
    ///
    /// Unsafe: initialized in `init`, then changed only through the atomic, freed in `deinit`. The kernel reads it too, so it must not move.
    private nonisolated(unsafe) let news: UnsafeMutablePointer<Atomic<UInt32>>
    /// CLOCK_MONOTONIC less this is the clock's time.
    private let origin: Atomic<UInt64>
    /// The time at which it was stopped; `.max` while it runs.
    private let stoppedAt = Atomic<UInt64>(.max)

    /// Starts at zero, running.
    public init(threadName: String) throws(SystemError) {
        origin = Atomic(Self.hostTime())
        news = .allocate(capacity: 1)
        news.initialize(to: Atomic(0))
        let thread = try HostThread(name: threadName) { [self] in serve() }
        state.withLock { $0.thread = thread }
    }

    deinit {
        news.deinitialize(count: 1)
        news.deallocate()
    }

    /// Ends the thread and waits for it; alarms fire no more. Not to be called by an alarm.
    public func shutDown() {
        let thread = state.withLock { state in
            state.isStopping = true
            return state.thread.take()
        }
        wakeThread()
        thread?.join()
    }

    // MARK: time

    /// Nanoseconds.
    public var now: UInt64 {
        let stopped = stoppedAt.load(ordering: .acquiring)
        return stopped != .max ? stopped : Self.hostTime() &- origin.load(ordering: .relaxed)
    }

    /// The host's wall clock: nanoseconds since 1970 (UTC).
    public var wallClock: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
    }

    /// Time stands still until `resume`; no alarm fires. Harmless if it is stopped.
    public func pause() {
        state.withLock { _ in
            if stoppedAt.load(ordering: .relaxed) == .max { stoppedAt.store(now, ordering: .releasing) }
        }
    }

    /// Time goes on from where it stopped. Harmless if it runs.
    public func resume() {
        state.withLock { state in
            let stopped = stoppedAt.load(ordering: .relaxed)
            guard stopped != .max else { return }
            origin.store(Self.hostTime() &- stopped, ordering: .relaxed)
            stoppedAt.store(.max, ordering: .releasing)
        }
        wakeThread()
    }

    private static func hostTime() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(bitPattern: Int64(time.tv_sec)) &* 1_000_000_000 &+ UInt64(bitPattern: Int64(time.tv_nsec))
    }

    // MARK: alarms

    /// An alarm, not set. `fire` runs on the clock's thread, without locks.
    public func makeAlarm(_ fire: @escaping @Sendable () -> Void) -> Alarm {
        let slot = state.withLock { state in
            if let slot = state.free.popLast() {
                state.slots[slot].fire = fire
                return slot
            }
            state.slots.append(Slot(fire: fire))
            return state.slots.count - 1
        }
        return Alarm(clock: self, slot: slot)
    }

    private func set(_ slot: Int, _ deadline: UInt64) {
        let isEarlier = state.withLock { state in
            state.slots[slot].deadline = deadline
            // Nobody need wake it twice.
            guard deadline < state.sleepsUntil else { return false }
            state.sleepsUntil = 0
            return true
        }
        if isEarlier { wakeThread() }
    }

    private func clear(_ slot: Int) {
        state.withLock { $0.slots[slot].deadline = .max }
    }

    private func free(_ slot: Int) {
        // What the closure holds is let go outside the lock: it may own other alarms.
        let fire = state.withLock { state in
            state.slots[slot].deadline = .max
            state.free.append(slot)
            return state.slots[slot].fire.take()
        }
        _ = fire
    }

    private func wakeThread() {
        news.pointee.wrappingAdd(1, ordering: .releasing)
        davit_futex_wake(word, 1)
    }

    // Safe: an Atomic<UInt32> is its 32 bits, and the kernel only compares them.
    private var word: UnsafeMutablePointer<UInt32> {
        UnsafeMutableRawPointer(news).assumingMemoryBound(to: UInt32.self)
    }

    private enum Step {
        case stop
        case fire(@Sendable () -> Void)
        /// Until a time on this clock, `.max` for ever, if `news` still is what it was.
        case sleep(until: UInt64, news: UInt32)
    }

    private func serve() {
        // By default Linux may be 50 microseconds late.
        davit_set_timer_slack(1)
        while true {
            switch nextStep() {
            case .stop: return
            case .fire(let fire): fire()
            case .sleep(until: let deadline, news: let seen):
                guard deadline != .max else {
                    _ = davit_futex_wait(word, seen, -1)
                    continue
                }
                let now = now
                if deadline > now { _ = davit_futex_wait(word, seen, Int64(clamping: deadline &- now)) }
            }
        }
    }

    /// The alarm with the earliest deadline, if that has passed: so none waits for ever behind one that is set again and again.
    private func nextStep() -> Step {
        state.withLock { state in
            if state.isStopping { return .stop }
            let seen = news.pointee.load(ordering: .acquiring)
            var earliest = UInt64.max
            var next = 0
            for slot in state.slots.indices where state.slots[slot].deadline < earliest {
                earliest = state.slots[slot].deadline
                next = slot
            }
            // A stopped clock's thread waits for `resume`.
            let isStopped = stoppedAt.load(ordering: .relaxed) != .max
            if !isStopped, earliest <= now, earliest != .max, let fire = state.slots[next].fire {
                state.slots[next].deadline = .max
                state.sleepsUntil = 0
                return .fire(fire)
            }
            state.sleepsUntil = isStopped ? 0 : earliest
            return .sleep(until: isStopped ? .max : earliest, news: seen)
        }
    }
}
