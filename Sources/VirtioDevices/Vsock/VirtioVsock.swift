import Glibc
import HostLinux
import MachineModel
import Synchronization
import VirtioQueue

/// Sockets between host and guest (virtio 1.2, 5.10), with Unix sockets on the host's side as Firecracker and Cloud Hypervisor have them:
/// a program that connects to `path` and writes `CONNECT PORT\n` is answered `OK PORT\n` and reaches the guest's port; what the guest connects to
/// at port P of CID 2 is the Unix socket `path_P`.
///
/// All work is done on a thread of its own. Left out: packets that keep their boundaries (SEQPACKET).
public final class VirtioVsock: VirtioDevice {
    private static let queueSize: UInt16 = 128
    private static let receive = 0
    private static let transmit = 1
    /// Connections at once; more are refused.
    static let maximumConnections = 1024
    /// Answers that wait for the guest to make room; beyond that its packets wait too.
    private static let maximumAnswers = 256
    private static let maximumData = 64 << 10
    private static let maximumGreeting = 32
    /// The first port that a program of the host's comes from.
    private static let firstHostPort: UInt32 = 1 << 30

    public let type = VirtioDeviceType.vsock
    public let name: String
    public let features: VirtioFeatures = []
    public let queueSizes = [UInt16](repeating: queueSize, count: 3)
    private let cid: UInt64
    private let path: String
    private let listener: Int32
    private let loop: EventLoop
    private let queues = DeviceQueues(count: 3)

    typealias Key = VsockConnection.Key

    struct State {
        var connections: [Key: VsockConnection] = [:]
        /// Programs that have not said where they want to; by descriptor.
        var greeting: [Int32: VsockConnection] = [:]
        var answers: [VsockHeader] = []
        /// A buffer of the guest's that was taken and not filled.
        var spare: DescriptorChain?
        var nextHostPort = VirtioVsock.firstHostPort
        /// Where to look for data first, so that each connection has its turn.
        var turn = 0
        var isActive = false
    }

    /// Guards the connections. Nobody is called under it but the loop and the queues.
    private let state = Mutex(State())

    /// `cid` is the guest's context id, 3 or more. Listens at `path`, where a socket that nobody serves is replaced.
    public init(name: String, cid: UInt64, path: String) throws(SystemError) {
        self.name = name
        self.cid = cid
        self.path = path
        listener = try UnixSocket.listen(path)
        loop = try EventLoop(name: "davit-\(name)")
        try loop.watch(listener) { [weak self] in self?.accept() }
    }

    /// Ends all connections and the thread.
    public func close() {
        loop.stop()
        Glibc.close(listener)
        UnixSocket.remove(path)
        state.withLock { state in
            for connection in state.connections.values { Glibc.close(connection.descriptor) }
            for descriptor in state.greeting.keys { Glibc.close(descriptor) }
            state.connections = [:]
            state.greeting = [:]
        }
    }

    public func configuration() -> [UInt8] {
        var fields = ConfigurationWriter()
        fields.append(cid)
        return fields.bytes
    }

    public func writeConfiguration(offset: Int, _ bytes: [UInt8]) {}
    public func connect(_ host: any VirtioHost) { queues.connect(host) }

    public func activate(_ active: [VirtioQueue?], features: VirtioFeatures) {
        queues.start(active)
        state.withLock { $0.isActive = true }
        loop.perform { [weak self] in self?.work() }
    }

    /// Every connection ends with the guest's driver.
    public func reset(_ done: @escaping @Sendable () -> Void) {
        state.withLock { state in
            state.isActive = false
            for key in Array(state.connections.keys) { drop(&state, key) }
            state.answers = []
            if state.spare.take() != nil { queues[Self.receive].drop(1) }
        }
        queues.stop(done)
    }

    public func notify(queue index: Int) { loop.perform { [weak self] in self?.work() } }

    // MARK: work, on the loop's thread

    private func work() {
        state.withLock { state in
            guard state.isActive else { return }
            var isMoving = true
            while isMoving {
                let hasTaken = takePackets(&state)
                let hasGiven = givePackets(&state)
                isMoving = hasTaken && hasGiven
            }
        }
    }

    /// From the guest, while there is room for answers. True if there were any.
    private func takePackets(_ state: inout State) -> Bool {
        var hasTaken = false
        while state.answers.count < Self.maximumAnswers {
            let chains = queues[Self.transmit].take(limit: 16)
            if chains.isEmpty { break }
            hasTaken = true
            for chain in chains { take(chain, &state) }
            queues[Self.transmit].give(chains.map { ($0, 0) })
        }
        return hasTaken
    }

    private func take(_ chain: DescriptorChain, _ state: inout State) {
        var bytes = [UInt8](repeating: 0, count: VsockHeader.size)
        guard bytes.withUnsafeMutableBytes({ chain.copyReadable(into: $0) }) == VsockHeader.size,
            let header = VsockHeader(bytes)
        else { return }
        // 5.10.6.4: what comes from or goes to somebody else is dropped.
        guard header.sourceCID == cid, header.destinationCID == VsockCID.host else { return }
        let key = Key(hostPort: header.destinationPort, guestPort: header.sourcePort)
        guard header.type == VsockType.stream else { return answer(&state, key, VsockOperation.reset, header.type) }
        if header.operation == VsockOperation.request { return open(key, header, &state) }
        guard state.connections[key] != nil else {
            if header.operation != VsockOperation.reset { answer(&state, key, VsockOperation.reset) }
            return
        }
        state.connections[key]?.take(header)
        switch header.operation {
        case VsockOperation.response: establish(key, &state)
        case VsockOperation.reset: drop(&state, key)
        case VsockOperation.shutdown: shutDown(key, header.flags, &state)
        case VsockOperation.data: takeData(chain, header, key, &state)
        case VsockOperation.creditUpdate: break
        case VsockOperation.creditRequest: answer(&state, key, VsockOperation.creditUpdate)
        default: refuse(key, &state)
        }
    }

    /// The guest connects to a Unix socket of the host's.
    private func open(_ key: Key, _ header: VsockHeader, _ state: inout State) {
        guard state.connections[key] == nil, state.connections.count < Self.maximumConnections else {
            return refuse(key, &state)
        }
        let target = "\(path)_\(key.hostPort)"
        do throws(SystemError) {
            let descriptor = try UnixSocket.connect(target)
            var connection = VsockConnection(descriptor: descriptor, phase: .open)
            connection.take(header)
            guard watch(key, connection, &state) else { return refuse(key, &state) }
            answer(&state, key, VsockOperation.response)
        } catch {
            answer(&state, key, VsockOperation.reset)
        }
    }

    /// The guest has accepted a connection of the host's.
    private func establish(_ key: Key, _ state: inout State) {
        guard let connection = state.connections[key], case .requested = connection.phase else {
            return refuse(key, &state)
        }
        state.connections[key]?.phase = .open
        let line = Array("OK \(key.hostPort)\n".utf8)
        // The socket is fresh: that much has room.
        _ = send(connection.descriptor, line, line.count, Int32(MSG_NOSIGNAL))
        loop.setEnabled(true, for: connection.descriptor)
    }

    private func shutDown(_ key: Key, _ flags: UInt32, _ state: inout State) {
        state.connections[key]?.guestShutdown |= flags & VsockShutdown.both
        guard let shut = state.connections[key]?.guestShutdown else { return }
        if shut == VsockShutdown.both, state.connections[key]?.waitingCount == 0 {
            return refuse(key, &state)
        }
        flush(key, &state)
    }

    private func takeData(
        _ chain: DescriptorChain, _ header: VsockHeader, _ key: Key, _ state: inout State
    ) {
        let count = Int(header.length)
        guard var connection = state.connections[key], case .open = connection.phase,
            count <= chain.readableCount - VsockHeader.size,
            // More than it was granted.
            connection.waitingCount + count <= VsockConnection.bufferSize
        else { return refuse(key, &state) }
        let old = connection.waiting.count
        state.connections[key] = nil
        connection.waiting += [UInt8](repeating: 0, count: count)
        _ = connection.waiting.withUnsafeMutableBytes {
            chain.copyReadable(from: VsockHeader.size, into: UnsafeMutableRawBufferPointer(rebasing: $0[old...]))
        }
        state.connections[key] = connection
        flush(key, &state)
    }

    private func flush(_ key: Key, _ state: inout State) {
        guard let isAlive = state.connections[key]?.flush(), isAlive, let connection = state.connections[key] else {
            return refuse(key, &state)
        }
        loop.setWantsRoom(connection.waitingCount > 0, for: connection.descriptor)
        if connection.waitingCount == 0 && connection.guestShutdown == VsockShutdown.both { return refuse(key, &state) }
        // Half of the buffer has become free since the guest heard of it last.
        if connection.forwarded &- connection.toldForwarded >= UInt32(VsockConnection.bufferSize / 2) {
            answer(&state, key, VsockOperation.creditUpdate)
        }
    }

    // MARK: to the guest

    private func answer(
        _ state: inout State, _ key: Key, _ operation: UInt16, _ type: UInt16 = VsockType.stream, flags: UInt32 = 0
    ) {
        state.answers.append(header(&state, key, operation, type, flags: flags))
    }

    private func header(
        _ state: inout State, _ key: Key, _ operation: UInt16, _ type: UInt16 = VsockType.stream, flags: UInt32 = 0,
        length: Int = 0
    ) -> VsockHeader {
        var header = VsockHeader()
        header.sourceCID = VsockCID.host
        header.destinationCID = cid
        header.sourcePort = key.hostPort
        header.destinationPort = key.guestPort
        header.type = type
        header.operation = operation
        header.flags = flags
        header.length = UInt32(length)
        header.bufferSize = UInt32(VsockConnection.bufferSize)
        if let forwarded = state.connections[key]?.forwarded {
            header.forwarded = forwarded
            state.connections[key]?.toldForwarded = forwarded
        }
        return header
    }

    /// Ends a connection from our side.
    private func refuse(_ key: Key, _ state: inout State) {
        drop(&state, key)
        answer(&state, key, VsockOperation.reset)
    }

    private func drop(_ state: inout State, _ key: Key) {
        guard let connection = state.connections.removeValue(forKey: key) else { return }
        loop.forget(connection.descriptor)
        Glibc.close(connection.descriptor)
    }

    /// Answers first, then data, as far as the guest has buffers. True if there were any.
    private func givePackets(_ state: inout State) -> Bool {
        var hasGiven = false
        while !state.answers.isEmpty || state.connections.values.contains(where: Self.hasData) {
            guard let chain = state.spare.take() ?? queues[Self.receive].take(limit: 1).first else { break }
            guard chain.writableCount > VsockHeader.size else {
                queues[Self.receive].give(chain, written: 0)
                continue
            }
            hasGiven = true
            if !state.answers.isEmpty {
                let bytes = state.answers.removeFirst().bytes
                let count = bytes.withUnsafeBytes { chain.copyWritable(from: $0) }
                queues[Self.receive].give(chain, written: count)
            } else {
                let count = giveData(chain, &state)
                if count > 0 { queues[Self.receive].give(chain, written: count) } else { state.spare = chain }
            }
        }
        return hasGiven
    }

    private static func hasData(_ connection: VsockConnection) -> Bool {
        if case .open = connection.phase { connection.isReadable && connection.credit > 0 } else { false }
    }

    /// Fills a buffer from the next connection that has something; bytes written, 0 if there was nothing after all.
    private func giveData(_ chain: DescriptorChain, _ state: inout State) -> Int {
        let ready = state.connections.filter { Self.hasData($0.value) }.keys
        guard !ready.isEmpty else { return 0 }
        state.turn &+= 1
        let keys = ready.sorted { ($0.hostPort, $0.guestPort) < ($1.hostPort, $1.guestPort) }
        let key = keys[abs(state.turn % keys.count)]
        guard let connection = state.connections[key] else { return 0 }
        let room = min(chain.writableCount - VsockHeader.size, connection.credit, Self.maximumData)
        let pieces = chain.writablePieces(from: VsockHeader.size, count: room)
        let count = readv(connection.descriptor, pieces, Int32(pieces.count))
        let header: VsockHeader
        if count > 0 {
            state.connections[key]?.sent &+= UInt32(truncatingIfNeeded: count)
            header = self.header(&state, key, VsockOperation.data, length: count)
        } else if count < 0 && (errno == EAGAIN || errno == EINTR) {
            state.connections[key]?.isReadable = false
            loop.setEnabled(true, for: connection.descriptor)
            return 0
        } else if count == 0 {
            // The host's program sends no more; it may still read.
            state.connections[key]?.isReadable = false
            state.connections[key]?.isEnded = true
            header = self.header(&state, key, VsockOperation.shutdown, flags: VsockShutdown.send)
        } else {
            drop(&state, key)
            header = self.header(&state, key, VsockOperation.reset)
        }
        let written = header.bytes.withUnsafeBytes { chain.copyWritable(from: $0) }
        return written + max(count, 0)
    }

    // MARK: from the host

    /// Takes a connection in and listens for what comes on it.
    private func watch(_ key: Key, _ connection: VsockConnection, _ state: inout State) -> Bool {
        do throws(SystemError) {
            try loop.watch(connection.descriptor) { [weak self] in self?.ready(key) }
        } catch {
            Glibc.close(connection.descriptor)
            return false
        }
        state.connections[key] = connection
        if case .requested = connection.phase { loop.setEnabled(false, for: connection.descriptor) }
        return true
    }

    private func ready(_ key: Key) {
        state.withLock { state in
            guard let connection = state.connections[key] else { return }
            if connection.waitingCount > 0 { flush(key, &state) }
            guard state.connections[key] != nil, !connection.isEnded else {
                loop.setEnabled(false, for: connection.descriptor)
                return
            }
            // Looked at again when it has been read empty.
            state.connections[key]?.isReadable = true
            loop.setEnabled(false, for: connection.descriptor)
        }
        work()
    }

    private func accept() {
        guard let descriptor = UnixSocket.accept(listener) else { return }
        state.withLock { state in
            guard state.isActive, state.greeting.count + state.connections.count < Self.maximumConnections else {
                Glibc.close(descriptor)
                return
            }
            state.greeting[descriptor] = VsockConnection(descriptor: descriptor, phase: .greeting([]))
            do throws(SystemError) {
                try loop.watch(descriptor) { [weak self] in self?.greet(descriptor) }
            } catch {
                state.greeting[descriptor] = nil
                Glibc.close(descriptor)
            }
        }
    }

    /// Reads `CONNECT PORT\n`, byte by byte, so that nothing behind it is taken.
    private func greet(_ descriptor: Int32) {
        state.withLock { state in
            guard case .greeting(var line) = state.greeting[descriptor]?.phase else { return }
            var byte: UInt8 = 0
            while true {
                let count = recv(descriptor, &byte, 1, 0)
                if count < 0 && (errno == EAGAIN || errno == EINTR) { break }
                guard count == 1, line.count < Self.maximumGreeting else { return endGreeting(descriptor, nil, &state) }
                if byte == 0x0A {
                    let words = String(decoding: line, as: UTF8.self).split(separator: " ")
                    let port = words.count == 2 && words[0] == "CONNECT" ? UInt32(words[1]) : nil
                    return endGreeting(descriptor, port, &state)
                }
                line.append(byte)
            }
            state.greeting[descriptor]?.phase = .greeting(line)
        }
        work()
    }

    private func endGreeting(_ descriptor: Int32, _ port: UInt32?, _ state: inout State) {
        state.greeting[descriptor] = nil
        loop.forget(descriptor)
        guard let port, state.isActive else {
            Glibc.close(descriptor)
            return
        }
        var key = Key(hostPort: state.nextHostPort, guestPort: port)
        while state.connections[key] != nil { key.hostPort &+= 1 }
        state.nextHostPort = max(key.hostPort &+ 1, Self.firstHostPort)
        if watch(key, VsockConnection(descriptor: descriptor, phase: .requested), &state) {
            answer(&state, key, VsockOperation.request)
        }
    }
}
