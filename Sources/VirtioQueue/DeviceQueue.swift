import Synchronization

/// One queue of a device: takes chains and gives them back, with all that goes with it: notifications, interrupts, what is in flight
/// at a reset, a driver that breaks the rules. Any thread may call.
public final class DeviceQueue: Sendable {
    private struct State: Sendable {
        /// Nil while there is no driver, or after it broke the rules.
        var queue: VirtioQueue?
        /// Chains taken and not given back.
        var inFlight = 0
        /// Chains were left in the ring because as many are in flight as may be.
        var isFull = false
        /// Called when nothing is in flight any more.
        var drained: [@Sendable () -> Void] = []

        /// Those to be called now.
        mutating func takeDrained() -> [@Sendable () -> Void] {
            guard inFlight == 0 else { return [] }
            defer { drained = [] }
            return drained
        }
    }

    public let index: Int
    private let fail: @Sendable (VirtioError) -> Void
    private let interrupt: @Sendable () -> Void
    /// Guards the ring. Nobody is called under it.
    private let state = Mutex(State())
    private let serving = SharedWork()

    init(index: Int, interrupt: @escaping @Sendable () -> Void, fail: @escaping @Sendable (VirtioError) -> Void) {
        self.index = index
        self.interrupt = interrupt
        self.fail = fail
    }

    func start(_ queue: VirtioQueue?) { state.withLock { $0.queue = queue } }

    /// Takes nothing any more; what is in flight is not shown to the driver.
    func stop() { state.withLock { $0.queue = nil } }

    /// As `stop`; `done` is called once nothing is in flight.
    func stop(_ done: @escaping @Sendable () -> Void) {
        let isDrained = state.withLock { state in
            state.queue = nil
            guard state.inFlight > 0 else { return true }
            state.drained.append(done)
            return false
        }
        if isDrained { done() }
    }

    /// The driver has set the queue up.
    public var isActive: Bool { state.withLock { $0.queue != nil } }

    /// Takes available chains, at most `limit`, and so that no more are in flight than the queue is long. When these limits are not
    /// reached, the driver will notify of the next chain. Those that are no use to any device are given back at once.
    public func take(limit: Int = Int.max) -> [DescriptorChain] {
        var chains: [DescriptorChain] = []
        var failure: VirtioError?
        let isInterrupting = state.withLock { state in
            guard state.queue != nil else { return false }
            do throws(VirtioError) {
                state.queue?.disableNotifications()
                let size = Int(state.queue?.size ?? 0)
                // A driver that makes chains of no use for ever keeps no thread here for ever.
                var useless = 0
                while chains.count < limit, state.inFlight < size, useless < size {
                    var chain = DescriptorChain()
                    guard try state.queue?.pop(into: &chain) == true else {
                        if state.queue?.enableNotifications() == true { continue }
                        break
                    }
                    if chain.isOutOfOrder {
                        state.queue?.push(chain, written: 0)
                        useless += 1
                    } else {
                        state.inFlight += 1
                        chains.append(chain)
                    }
                }
                state.isFull = state.inFlight >= size || useless >= size
                return useless > 0 && state.queue?.publish() == true
            } catch {
                failure = error
                state.queue = nil
                return false
            }
        }
        if let failure { fail(failure) }
        if isInterrupting { interrupt() }
        return chains
    }

    /// Hands what is available to `body` until there is no more, on one thread at a time.
    public func serve(_ body: ([DescriptorChain]) -> Void) {
        serving.run {
            let chains = take()
            if !chains.isEmpty { body(chains) }
        }
    }

    /// Gives a chain back, of which `written` bytes were written. True if `take` left others because too many were in flight.
    @discardableResult
    public func give(_ chain: DescriptorChain, written: Int) -> Bool { give([(chain, written)]) }

    /// Gives chains back in order, with at most one interrupt.
    @discardableResult
    public func give(_ chains: [(chain: DescriptorChain, written: Int)]) -> Bool {
        let (isInterrupting, drained, wasFull) = state.withLock { state in
            state.inFlight -= chains.count
            let drained = state.takeDrained()
            guard state.queue != nil else { return (false, drained, false) }
            for (chain, written) in chains { state.queue?.push(chain, written: written) }
            return (state.queue?.publish() ?? false, drained, state.isFull)
        }
        if isInterrupting { interrupt() }
        for done in drained { done() }
        return wasFull
    }

    /// Lets chains go that the driver will not see again, because it is resetting the device.
    public func drop(_ count: Int) {
        let drained = state.withLock { state in
            state.inFlight -= count
            return state.takeDrained()
        }
        for done in drained { done() }
    }
}

/// All queues of a device.
public final class DeviceQueues: Sendable {
    private struct Connection: Sendable {
        weak var host: (any VirtioHost)?
        var queues: [WeakQueue] = []
    }

    private struct WeakQueue: Sendable {
        weak var queue: DeviceQueue?

        init(_ queue: DeviceQueue) { self.queue = queue }
    }

    /// Counts queues that are not drained yet.
    private final class Countdown: Sendable {
        private let rest: Atomic<Int>
        private let done: @Sendable () -> Void

        init(_ count: Int, _ done: @escaping @Sendable () -> Void) {
            rest = Atomic(count)
            self.done = done
        }

        func step() { if rest.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 { done() } }
    }

    public let queues: [DeviceQueue]
    private let connection: ConnectionBox

    /// Guards who the transport is.
    private final class ConnectionBox: Sendable {
        let connection = Mutex(Connection())
        var host: (any VirtioHost)? { connection.withLock { $0.host } }

        func setQueues(_ queues: [DeviceQueue]) { connection.withLock { $0.queues = queues.map(WeakQueue.init) } }

        /// A driver that has spoilt one queue finds the whole device standing still.
        func stopAll() { for queue in connection.withLock({ $0.queues }) { queue.queue?.stop() } }
    }

    public init(count: Int) {
        let connection = ConnectionBox()
        self.connection = connection
        queues = (0..<count).map { index in
            DeviceQueue(
                index: index, interrupt: { connection.host?.interrupt(queue: index) },
                fail: { error in
                    connection.stopAll()
                    connection.host?.deviceFailed(error)
                })
        }
        connection.setQueues(queues)
    }

    public subscript(_ index: Int) -> DeviceQueue { queues[index] }

    public func connect(_ host: any VirtioHost) { connection.connection.withLock { $0.host = host } }

    public var host: (any VirtioHost)? { connection.host }

    public func start(_ active: [VirtioQueue?]) {
        for (queue, ring) in zip(queues, active) { queue.start(ring) }
    }

    public func start(_ index: Int, _ ring: VirtioQueue) { queues[index].start(ring) }

    /// As `stop`, one of them.
    public func stop(_ index: Int, _ done: @escaping @Sendable () -> Void) { queues[index].stop(done) }

    /// Takes nothing any more; `done` is called once nothing is in flight.
    public func stop(_ done: @escaping @Sendable () -> Void) {
        let countdown = Countdown(queues.count, done)
        for queue in queues { queue.stop { countdown.step() } }
    }
}
