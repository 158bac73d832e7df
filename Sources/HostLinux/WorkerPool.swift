import Glibc
import Synchronization

/// Threads that do work which may wait, in the order in which it comes; they are started when there is something to do.
public final class WorkerPool: Sendable {
    public typealias Job = @Sendable () -> Void

    private struct State {
        var jobs: [Job] = []
        /// Index in `jobs` of the next one; those before it are done.
        var next = 0
        /// Jobs that may not begin yet, by the time (nanoseconds of CLOCK_MONOTONIC) at which they may; latest first.
        var delayed: [(due: UInt64, job: Job)] = []
        var idle = 0
        var threads: [HostThread] = []
        var isHurried = false
        var isStopping = false
    }

    private let name: String
    private let limit: Int
    /// Guards the jobs; not held while one runs.
    private let state = Mutex(State())
    /// Counts up when there is something to see.
    private let wakeup: EventFD

    /// At most `limit` threads, named `name`.
    public init(name: String, limit: Int) throws(SystemError) {
        self.name = name
        self.limit = limit
        wakeup = try EventFD()
    }

    /// CLOCK_MONOTONIC, in nanoseconds.
    public static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// Has `job` done, not before `due` (nanoseconds of CLOCK_MONOTONIC) if it is given.
    public func perform(notBefore due: UInt64? = nil, _ job: @escaping Job) {
        let (mustStart, mustWake) = state.withLock { state in
            if let due {
                let place = state.delayed.lastIndex { $0.due > due }.map { $0 + 1 } ?? 0
                state.delayed.insert((due, job), at: place)
            } else {
                state.jobs.append(job)
            }
            return (state.idle == 0 && state.threads.count < limit, state.idle > 0)
        }
        if mustStart { startThread() }
        // Threads that are busy look again before they sleep.
        if mustWake { wakeup.signal() }
    }

    private func startThread() {
        // Without a new thread those that there are do the work; without any, the next request tries again.
        guard let thread = try? HostThread(name: name, { [self] in serve() }) else { return }
        state.withLock { $0.threads.append(thread) }
    }

    private enum Next {
        case job(Job, wakesAnother: Bool)
        case wait(milliseconds: Int32)
        case stop
    }

    private func serve() {
        while true {
            switch next() {
            case .job(let job, let wakesAnother):
                // One wake-up reaches one thread.
                if wakesAnother { wakeup.signal() }
                job()
            case .wait(let milliseconds):
                _ = wakeup.wait(milliseconds: milliseconds)
                state.withLock { $0.idle -= 1 }
                _ = wakeup.drain()
            case .stop:
                wakeup.signal()
                return
            }
        }
    }

    private func next() -> Next {
        state.withLock { state in
            let now = state.delayed.isEmpty ? 0 : Self.now
            while let first = state.delayed.last, first.due <= now || state.isHurried {
                state.jobs.append(first.job)
                state.delayed.removeLast()
            }
            if state.next < state.jobs.count {
                let job = state.jobs[state.next]
                state.next += 1
                if state.next == state.jobs.count || state.next >= 1024 {
                    state.jobs.removeFirst(state.next)
                    state.next = 0
                }
                return .job(job, wakesAnother: !state.jobs.isEmpty && state.idle > 0)
            }
            if state.isStopping { return .stop }
            state.idle += 1
            guard let first = state.delayed.last else { return .wait(milliseconds: -1) }
            return .wait(milliseconds: Int32(clamping: (first.due - now) / 1_000_000 + 1))
        }
    }

    /// Lets delayed jobs begin at once.
    public func hurry() {
        state.withLock { $0.isHurried = true }
        wakeup.signal()
    }

    /// Waits until all is done, and ends the threads. Not to be called by a job.
    public func stop() {
        state.withLock { $0.isStopping = true }
        wakeup.signal()
        while true {
            let threads = state.withLock { state in
                defer { state.threads = [] }
                return state.threads
            }
            if threads.isEmpty { return }
            for thread in threads { thread.join() }
        }
    }
}
