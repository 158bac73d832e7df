import MachineModel
import Synchronization
import VirtioQueue

/// A console (virtio 1.2, 5.3): one or several ports, each a stream of bytes. Those without a name are consoles, Linux's hvc0, hvc1 and so on;
/// the others are for programs, `/dev/virtio-ports/NAME`.
///
/// Left out: the legacy interface, and ports that come and go.
public final class VirtioConsole: ResettableQueues {
    /// What the guest's port leads to.
    public struct Port: Sendable {
        /// Empty for a console.
        public let name: String
        public let channel: any ByteChannel

        public init(name: String = "", channel: any ByteChannel) {
            self.name = name
            self.channel = channel
        }
    }

    public typealias Size = (rows: UInt16, columns: UInt16)

    public static let maximumPorts = 16
    /// In bytes of UTF-8.
    public static let maximumName = 64
    private static let queueSize: UInt16 = 64
    private static let controlReceive = 2
    private static let controlTransmit = 3

    /// Feature bits (5.3.3).
    private enum Feature {
        static let size = VirtioFeatures(bit: 0)
        static let multiport = VirtioFeatures(bit: 1)
        static let emergencyWrite = VirtioFeatures(bit: 2)
    }

    /// Where `emerg_wr` stands in the configuration.
    private static let emergencyWriteOffset = 8

    /// What the driver is yet to be told of a port, in the order in which it is.
    private struct News: OptionSet {
        let rawValue: UInt8
        static let add = News(rawValue: 1)
        static let console = News(rawValue: 2)
        static let name = News(rawValue: 4)
        static let open = News(rawValue: 8)
        static let size = News(rawValue: 16)
    }

    private struct State {
        var news: [News]
        /// Somebody is at the far end.
        var isConnected: [Bool]
        /// The driver knows the port.
        var isReady: [Bool]
        var size: Size = (0, 0)
        var features: VirtioFeatures = []
    }

    public let type = VirtioDeviceType.console
    public let name: String
    public let features: VirtioFeatures = [Feature.size, Feature.multiport, Feature.emergencyWrite]
    public let queueSizes: [UInt16]
    private let queues: DeviceQueues
    private let ports: [ConsolePort]
    /// Guards what the driver knows. Nobody is called under it.
    private let state: Mutex<State>
    private let telling = SharedWork()

    /// `ports`: one to `maximumPorts`.
    public init(name: String, ports: [Port]) {
        self.name = name
        precondition((1...Self.maximumPorts).contains(ports.count))
        let count = 2 + 2 * ports.count
        queueSizes = [UInt16](repeating: Self.queueSize, count: count)
        let queues = DeviceQueues(count: count)
        self.queues = queues
        self.ports = ports.enumerated().map { number, port in
            let first = Self.firstQueue(of: number)
            return ConsolePort(port, receive: queues[first], transmit: queues[first + 1])
        }
        state = Mutex(
            State(
                news: ports.map { _ in [] }, isConnected: ports.map { _ in false }, isReady: ports.map { _ in false }))
        for (number, port) in self.ports.enumerated() {
            port.start { [weak self] isConnected in self?.setConnected(isConnected, port: number) }
        }
    }

    /// The control queues stand between those of the first port and the rest.
    private static func firstQueue(of port: Int) -> Int { port == 0 ? 0 : 2 + 2 * port }

    /// Of the terminal at the consoles' far end.
    public func setSize(_ size: Size) {
        let isMultiport = state.withLock { state in
            state.size = size
            for i in ports.indices where ports[i].isConsole && state.isReady[i] { state.news[i].insert(.size) }
            return state.features.contains(Feature.multiport)
        }
        if isMultiport { tellNews() } else { queues.host?.configurationChanged() }
    }

    public func configuration() -> [UInt8] {
        var fields = ConfigurationWriter()
        let size = state.withLock { $0.size }
        fields.append(size.columns)
        fields.append(size.rows)
        fields.append(UInt32(ports.count))
        fields.append(0 as UInt32)
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {
        if offset == Self.emergencyWriteOffset, let byte = bytes.first { ports.first?.write(byte) }
    }

    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        state.withLock { $0.features = features }
        queues.start(active)
        for index in queueSizes.indices { notify(queue: index) }
    }

    public func reset(_ done: @escaping @Sendable () -> Void) {
        state.withLock { state in
            state.features = []
            for i in ports.indices {
                state.news[i] = []
                state.isReady[i] = false
            }
        }
        // First nothing is taken any more, then what waits goes.
        queues.stop(done)
        for port in ports { port.reset() }
    }

    public func resetQueue(_ index: Int, _ done: @escaping @Sendable () -> Void) {
        queues.stop(index, done)
        let port = index < 2 ? 0 : index / 2 - 1
        let isControl = index == Self.controlReceive || index == Self.controlTransmit
        if !isControl && index % 2 == 1 { ports[port].dropOutput() }
    }

    public func activateQueue(_ index: Int, _ queue: VirtioQueue) {
        queues.start(index, queue)
        notify(queue: index)
    }

    public func notify(queue index: Int) {
        switch index {
        case Self.controlReceive: tellNews()
        case Self.controlTransmit: takeMessages()
        default:
            let port = index < 2 ? 0 : index / 2 - 1
            if index % 2 == 0 { ports[port].roomWasMade() } else { ports[port].transmit() }
        }
    }

    private func setConnected(_ isConnected: Bool, port: Int) {
        state.withLock { state in
            state.isConnected[port] = isConnected
            if state.isReady[port] { state.news[port].insert(.open) }
        }
        tellNews()
    }

    // MARK: control queues

    private func takeMessages() {
        queues[Self.controlTransmit].serve { chains in
            for chain in chains {
                var bytes = [UInt8](repeating: 0, count: ConsoleMessage.size)
                let count = bytes.withUnsafeMutableBytes { chain.copyReadable(into: $0) }
                if let message = ConsoleMessage(Array(bytes[..<count])) { take(message) }
            }
            queues[Self.controlTransmit].give(chains.map { ($0, 0) })
        }
        tellNews()
    }

    private func take(_ message: ConsoleMessage) {
        if message.event == .deviceReady {
            guard message.value == 1 else { return }
            return state.withLock { state in for i in ports.indices { state.news[i].insert(.add) } }
        }
        guard let number = Int(exactly: message.port), ports.indices.contains(number) else { return }
        switch message.event {
        case .portReady where message.value == 1:
            state.withLock { state in
                state.isReady[number] = true
                state.news[number].formUnion(ports[number].isConsole ? [.console, .open, .size] : [.name, .open])
            }
        case .portOpen: ports[number].setOpenInGuest(message.value == 1)
        default: break
        }
    }

    /// Fills the driver's buffers with what it is to be told, as far as there are any.
    private func tellNews() {
        let queue = queues[Self.controlReceive]
        telling.run {
            while state.withLock({ $0.news.contains { !$0.isEmpty } }) {
                guard let chain = queue.take(limit: 1).first else { return }
                // A reset may have come meanwhile.
                let bytes = state.withLock { nextMessage(&$0) }?.bytes ?? []
                queue.give(chain, written: bytes.withUnsafeBytes { chain.copyWritable(from: $0) })
            }
        }
    }

    private func nextMessage(_ state: inout State) -> ConsoleMessage? {
        for port in ports.indices {
            let news = state.news[port]
            if news.isEmpty { continue }
            // The lowest bit is what comes first.
            let first = News(rawValue: news.rawValue & (0 &- news.rawValue))
            state.news[port].remove(first)
            switch first {
            case .add: return ConsoleMessage(port: port, .deviceAdd)
            case .console: return ConsoleMessage(port: port, .consolePort, value: 1)
            case .name: return ConsoleMessage(port: port, .portName, value: 1, payload: Array(ports[port].name.utf8))
            case .open: return ConsoleMessage(port: port, .portOpen, value: state.isConnected[port] ? 1 : 0)
            default:
                var size = ConfigurationWriter()
                size.append(state.size.columns)
                size.append(state.size.rows)
                return ConsoleMessage(port: port, .resize, payload: size.bytes)
            }
        }
        return nil
    }
}
