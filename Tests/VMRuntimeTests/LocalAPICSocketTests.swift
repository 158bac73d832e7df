import MachineModel
import Synchronization
import Testing

@testable import VMRuntime

/// What chips and devices send while engines change.
@Suite struct LocalAPICSocketTests {
    private final class Engine: LocalAPICBus {
        private let messages = Mutex<[InterruptMessage]>([])
        let level = Mutex(false)
        var delivered: [UInt32] { messages.withLock { $0.map(\.data) } }

        func deliver(_ message: InterruptMessage) { messages.withLock { $0.append(message) } }
        func makeRoute() -> (any InterruptRoute)? { Route(self) }
        func setExternalInterrupt(_ level: Bool) { self.level.withLock { $0 = level } }
        func connect(_ source: (any InterruptSource)?) {}
        func setLevelTriggered(_ message: InterruptMessage?, pin: Int) {}
    }

    private final class Route: InterruptRoute {
        private let engine: Engine
        private let message = Mutex<InterruptMessage?>(nil)

        init(_ engine: Engine) { self.engine = engine }

        func set(_ message: InterruptMessage) -> Bool {
            self.message.withLock { $0 = message }
            return true
        }

        func send() { if let message = message.withLock({ $0 }) { engine.deliver(message) } }
    }

    private func message(_ data: UInt32) -> InterruptMessage { InterruptMessage(address: 0xFEE0_0000, data: data) }

    @Test func whatComesWhileStatesMoveGoesToTheNextEngine() throws {
        let (first, second) = (Engine(), Engine())
        let socket = LocalAPICSocket(first)
        let route = try #require(socket.makeRoute())
        #expect(route.set(message(7)))
        socket.deliver(message(1))
        route.send()
        socket.hold()
        socket.deliver(message(2))
        // Twice the same is one interrupt.
        socket.deliver(message(2))
        route.send()
        socket.setExternalInterrupt(true)
        #expect(first.delivered == [1, 7])
        socket.plug(second)
        #expect(first.delivered == [1, 7] && second.delivered == [2, 7])
        #expect(second.level.withLock { $0 })
        socket.deliver(message(3))
        route.send()
        #expect(second.delivered == [2, 7, 3, 7])
    }

    @Test func whenTheChangeFailsTheOldEngineHasIt() {
        let engine = Engine()
        let socket = LocalAPICSocket(engine)
        socket.hold()
        socket.deliver(message(1))
        #expect(engine.delivered == [])
        socket.release()
        socket.deliver(message(2))
        #expect(engine.delivered == [1, 2])
    }
}
