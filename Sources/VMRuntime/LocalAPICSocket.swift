import Glibc
import MachineModel
import Synchronization

/// What an engine is plugged into: its local APICs as the chips and devices of the board see them, while engines come and go.
final class LocalAPICSocket: LocalAPICBus {
    private struct State {
        var bus: any LocalAPICBus
        var source: (any InterruptSource)?
        var externalLevel = false
        var levelTriggered: [Int: InterruptMessage] = [:]
        var routes: [WeakRoute] = []
        /// Messages that wait for the next engine; nil while nothing is held back.
        var held: [InterruptMessage]?
        /// Messages that are being delivered.
        var inDelivery = 0
    }

    private struct WeakRoute {
        weak var route: SocketRoute?
    }

    /// Guards who is plugged in, and what the next has to be told. Held while the engine is told, so that it is told in order; not while
    /// messages are delivered.
    private let state: Mutex<State>

    init(_ bus: any LocalAPICBus) { state = Mutex(State(bus: bus)) }

    /// From now on messages wait: the states of the vCPUs, which have stopped, are about to be moved, and what came to the old ones
    /// afterwards would be lost. Ends with `plug` or `release`.
    func hold() {
        state.withLock { $0.held = [] }
        while state.withLock({ $0.inDelivery > 0 }) { sched_yield() }
    }

    /// Delivers what has waited.
    func release() {
        let (held, bus) = state.withLock { state in (state.held.take() ?? [], state.bus) }
        for message in held { bus.deliver(message) }
    }

    /// Takes the engine's place, when the states of its vCPUs are those of the one before.
    func plug(_ bus: any LocalAPICBus) {
        defer { release() }
        state.withLock { state in
            state.bus.connect(nil)
            state.bus = bus
            bus.connect(state.source)
            for (pin, message) in state.levelTriggered { bus.setLevelTriggered(message, pin: pin) }
            bus.setExternalInterrupt(state.externalLevel)
            state.routes.removeAll { $0.route == nil }
            for entry in state.routes { entry.route?.reroute(by: bus.makeRoute()) }
        }
    }

    func deliver(_ message: InterruptMessage) { deliver(message) { $0.deliver(message) } }

    /// Calls `body`, which delivers the message, with the engine's local APICs, unless it has to wait.
    fileprivate func deliver(_ message: InterruptMessage, _ body: (any LocalAPICBus) -> Void) {
        let bus = state.withLock { state -> (any LocalAPICBus)? in
            guard state.held == nil else {
                // A second one of the same would be one interrupt, too.
                if state.held?.contains(message) == false { state.held?.append(message) }
                return nil
            }
            state.inDelivery += 1
            return state.bus
        }
        guard let bus else { return }
        body(bus)
        state.withLock { $0.inDelivery -= 1 }
    }

    func makeRoute() -> (any InterruptRoute)? {
        state.withLock { state in
            // An engine without routes has no use for one; what is made before an engine with them comes goes without.
            guard let inner = state.bus.makeRoute() else { return nil }
            let route = SocketRoute(inner, socket: self)
            state.routes.append(WeakRoute(route: route))
            return route
        }
    }

    func setExternalInterrupt(_ level: Bool) {
        state.withLock {
            $0.externalLevel = level
            $0.bus.setExternalInterrupt(level)
        }
    }

    func connect(_ source: (any InterruptSource)?) {
        state.withLock {
            $0.source = source
            $0.bus.connect(source)
        }
    }

    func setLevelTriggered(_ message: InterruptMessage?, pin: Int) {
        state.withLock {
            $0.levelTriggered[pin] = message
            $0.bus.setLevelTriggered(message, pin: pin)
        }
    }
}

/// A route that outlives the engine by which it leads; by an engine without routes it leads as a message.
private final class SocketRoute: InterruptRoute {
    private struct State {
        var inner: (any InterruptRoute)?
        var message: InterruptMessage?
    }

    private unowned let socket: LocalAPICSocket
    /// Guards where it leads.
    private let state: Mutex<State>

    init(_ inner: any InterruptRoute, socket: LocalAPICSocket) {
        self.socket = socket
        state = Mutex(State(inner: inner))
    }

    func reroute(by inner: (any InterruptRoute)?) {
        state.withLock { state in
            state.inner = inner
            if let message = state.message, state.inner?.set(message) == false { state.inner = nil }
        }
    }

    func set(_ message: InterruptMessage) -> Bool {
        state.withLock { state in
            state.message = message
            return state.inner?.set(message) ?? true
        }
    }

    func send() {
        guard let message = state.withLock({ $0.message }) else { return }
        socket.deliver(message) { bus in
            if let inner = state.withLock({ $0.inner }) { inner.send() } else { bus.deliver(message) }
        }
    }
}
