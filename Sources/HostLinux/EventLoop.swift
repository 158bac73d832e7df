import CDavit
import Glibc
import Synchronization

/// A thread that waits for descriptors with epoll(7) and calls their handlers. Any thread may call.
public final class EventLoop: Sendable {
    private struct Watch {
        var isEnabled: Bool
        /// It is also called when the descriptor can be written to.
        var wantsRoom = false
        /// Regular files and `/dev/null` have no readiness: epoll refuses them, and reading them never waits.
        let isAlwaysReady: Bool
        let ready: @Sendable () -> Void
    }

    private struct State {
        var watches: [Int32: Watch] = [:]
        var calls: [@Sendable () -> Void] = []
        var isStopping = false
        var thread: HostThread?
    }

    private let epoll: Int32
    private let wakeup: EventFD
    /// Guards the watches and the calls; not held while a handler runs.
    private let state = Mutex(State())

    /// Starts the thread.
    public init(name: String) throws(SystemError) {
        wakeup = try EventFD()
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard epoll >= 0 else { throw SystemError("epoll_create1") }
        try control(EPOLL_CTL_ADD, wakeup.descriptor, enabled: true)
        let thread = try HostThread(name: name) { [self] in serve() }
        state.withLock { $0.thread = thread }
    }

    deinit { close(epoll) }

    /// Calls `ready` on the loop's thread whenever `descriptor` can be read, or its far end is gone, until `forget`.
    public func watch(_ descriptor: Int32, _ ready: @escaping @Sendable () -> Void) throws(SystemError) {
        var isAlwaysReady = false
        do throws(SystemError) {
            try control(EPOLL_CTL_ADD, descriptor, enabled: true)
        } catch {
            guard error.code == EPERM else { throw error }
            isAlwaysReady = true
        }
        state.withLock { $0.watches[descriptor] = Watch(isEnabled: true, isAlwaysReady: isAlwaysReady, ready: ready) }
        wakeup.signal()
    }

    /// Holds the handler's calls back, or lets them come again.
    public func setEnabled(_ isEnabled: Bool, for descriptor: Int32) {
        state.withLock { state in
            guard let watch = state.watches[descriptor], watch.isEnabled != isEnabled else { return }
            state.watches[descriptor]?.isEnabled = isEnabled
            if !watch.isAlwaysReady {
                try? control(EPOLL_CTL_MOD, descriptor, enabled: isEnabled, wantsRoom: watch.wantsRoom)
            }
        }
        wakeup.signal()
    }

    /// Whether the handler is called also when `descriptor` can be written to, even while its other calls are held back.
    public func setWantsRoom(_ wantsRoom: Bool, for descriptor: Int32) {
        state.withLock { state in
            guard let watch = state.watches[descriptor], watch.wantsRoom != wantsRoom else { return }
            state.watches[descriptor]?.wantsRoom = wantsRoom
            if !watch.isAlwaysReady {
                try? control(EPOLL_CTL_MOD, descriptor, enabled: watch.isEnabled, wantsRoom: wantsRoom)
            }
        }
    }

    /// No new call of the descriptor's handler begins after this.
    public func forget(_ descriptor: Int32) {
        state.withLock { state in
            guard let watch = state.watches.removeValue(forKey: descriptor) else { return }
            if !watch.isAlwaysReady { try? control(EPOLL_CTL_DEL, descriptor, enabled: false) }
        }
    }

    /// Calls `body` once on the loop's thread, soon.
    public func perform(_ body: @escaping @Sendable () -> Void) {
        state.withLock { $0.calls.append(body) }
        wakeup.signal()
    }

    /// Ends the thread and waits for it. Not to be called by a handler.
    public func stop() {
        let thread = state.withLock { state in
            state.isStopping = true
            return state.thread.take()
        }
        wakeup.signal()
        thread?.join()
    }

    private func control(
        _ operation: Int32, _ descriptor: Int32, enabled: Bool, wantsRoom: Bool = false
    ) throws(SystemError) {
        var event = epoll_event()
        event.events = (enabled ? UInt32(EPOLLIN.rawValue) : 0) | (wantsRoom ? UInt32(EPOLLOUT.rawValue) : 0)
        // A far end that is gone is reported whatever is asked for: then once, and not over and over.
        if event.events == 0 { event.events = UInt32(EPOLLET.rawValue) }
        event.data.fd = descriptor
        guard epoll_ctl(epoll, operation, descriptor, &event) == 0 else { throw SystemError("epoll_ctl") }
    }

    private func serve() {
        var events = [epoll_event](repeating: epoll_event(), count: 16)
        while true {
            let (isStopping, calls, alwaysReady) = state.withLock { state in
                let calls = state.calls
                state.calls = []
                let alwaysReady = state.watches.filter { $0.value.isAlwaysReady && $0.value.isEnabled }.map(\.key)
                return (state.isStopping, calls, alwaysReady)
            }
            if isStopping { return }
            for body in calls { body() }
            let count = epoll_wait(epoll, &events, Int32(events.count), alwaysReady.isEmpty ? -1 : 0)
            for event in events.prefix(Int(max(count, 0))) {
                if event.data.fd == wakeup.descriptor { _ = wakeup.drain() } else { call(event.data.fd) }
            }
            for descriptor in alwaysReady { call(descriptor) }
        }
    }

    private func call(_ descriptor: Int32) {
        let watch = state.withLock { $0.watches[descriptor] }
        if let watch, watch.isEnabled || watch.wantsRoom { watch.ready() }
    }
}
