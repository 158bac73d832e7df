import CDavit
import Glibc
public import HostLinux
import Synchronization

/// A socket on which one debugger at a time is served.
public final class GDBListener: Sendable {
    public enum Event: Equatable, Sendable {
        case connected
        /// Nothing more is read until `readOn`.
        case received([UInt8])
        case disconnected
    }

    public let address: GDBAddress
    private let loop: EventLoop
    private let listener: Int32
    private let deliver: @Sendable (Event) -> Void
    /// Guards the connection, nil if there is none, so that it is not closed while it is used.
    private let client = Mutex<Int32?>(nil)

    /// `deliver` is called on the loop's thread. Throws if the host does not give the address.
    public init(
        _ address: GDBAddress, loop: EventLoop, deliver: @escaping @Sendable (Event) -> Void
    ) throws(SystemError) {
        self.address = address
        self.loop = loop
        self.deliver = deliver
        listener = try Self.listen(address)
        do throws(SystemError) {
            try loop.watch(listener) { [weak self] in self?.acceptClient() }
        } catch {
            Glibc.close(listener)
            throw error
        }
    }

    private static func listen(_ address: GDBAddress) throws(SystemError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let descriptor = socket(address.family, kind, 0)
        guard descriptor >= 0 else { throw SystemError("socket") }
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        if case .unix(let path) = address { UnixSocket.removeDead(path) }
        guard address.withSocketAddress({ bind(descriptor, $0, $1) }) == 0, Glibc.listen(descriptor, 1) == 0 else {
            let error = SystemError("bind")
            Glibc.close(descriptor)
            throw error
        }
        return descriptor
    }

    private func acceptClient() {
        let connection = davit_socket_accept(listener)
        guard connection >= 0 else { return }
        let isWelcome = client.withLock { client in
            guard client == nil else { return false }
            client = connection
            return true
        }
        guard isWelcome else {
            Glibc.close(connection)
            return
        }
        // Small packets and answers in turn; a Unix socket has no such option.
        var yes: Int32 = 1
        setsockopt(connection, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        deliver(.connected)
        do throws(SystemError) {
            try loop.watch(connection) { [weak self] in self?.receive() }
        } catch {
            drop()
        }
    }

    private func receive() {
        var buffer = [UInt8](repeating: 0, count: GDBPacketReader.maximumPacket)
        var isGone = false
        let count = client.withLock { client in
            guard let client else { return 0 }
            let count = read(client, &buffer, buffer.count)
            isGone = count == 0 || count < 0 && errno != EAGAIN && errno != EINTR
            if count > 0 { loop.setEnabled(false, for: client) }
            return max(count, 0)
        }
        if isGone { drop() }
        if count > 0 { deliver(.received(Array(buffer[..<count]))) }
    }

    /// What was received has been dealt with. Any thread may call.
    public func readOn() { client.withLock { if let client = $0 { loop.setEnabled(true, for: client) } } }

    /// Any thread may call. A debugger that does not read its answers is cut off.
    public func send(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        let isSent = client.withLock { client in
            guard let client else { return true }
            return Glibc.send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
        }
        if !isSent { drop() }
    }

    private func drop() {
        let hadClient = client.withLock { client in
            guard let connection = client else { return false }
            loop.forget(connection)
            Glibc.close(connection)
            client = nil
            return true
        }
        if hadClient { deliver(.disconnected) }
    }

    /// To be called once, when nothing more is to come.
    public func close() {
        loop.forget(listener)
        drop()
        Glibc.close(listener)
        if case .unix(let path) = address { UnixSocket.remove(path) }
    }
}
