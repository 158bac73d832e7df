import CDavit
import Glibc
import HostLinux
import Synchronization

/// The console of a machine without a terminal: what its first serial port says goes to a file and to whoever is connected to the
/// console socket; what they type goes to it.
///
/// The machine never waits: a client that does not keep up is cut off, and the file begins anew when it is 8 MiB long, with one older
/// file kept.
public final class ConsoleServer: Sendable {
    static let socket = "console"

    private struct State {
        /// What each client has not taken yet.
        var clients: [Int32: [UInt8]] = [:]
        /// The newest output, which a new client gets first.
        var recent: [UInt8] = []
        var log: Int32
        var logSize = 0
    }

    private static let maximumLog = 8 << 20
    private static let maximumRecent = 1 << 16
    private static let maximumUnsent = 1 << 20
    private static let maximumClients = 64

    private let loop: EventLoop
    private let machine: MachineDirectory
    private let listener: Int32
    /// This end of the serial line.
    private let line: Int32
    /// The machine's end: for its standard input and output.
    public let far: Int32
    /// Guards clients and log.
    private let state: Mutex<State>

    /// `first` is a client from the beginning, so that it misses nothing.
    public init(for machine: MachineDirectory, loop: EventLoop, first: Int32? = nil) throws(StoreError) {
        self.loop = loop
        self.machine = machine
        let log = open(machine.consoleLog, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o600)
        guard log >= 0 else { throw .host("write '\(machine.consoleLog)'") }
        state = Mutex(State(log: log))
        unlink(machine.olderConsoleLog)
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw .host("make a socket")
        }
        (line, far) = (ends[0], ends[1])
        listener = try LocalSocket.listen(in: machine.path, Self.socket)
        do throws(SystemError) {
            try loop.watch(line) { [unowned self] in takeOutput() }
            try loop.watch(listener) { [unowned self] in acceptClient() }
            if let first {
                _ = fcntl(first, F_SETFL, O_NONBLOCK)
                state.withLock { $0.clients[first] = [] }
                try loop.watch(first) { [unowned self] in serve(first) }
            }
        } catch {
            throw StoreError("the console cannot be served: \(error)")
        }
    }

    private func acceptClient() {
        guard let client = LocalSocket.accept(listener) else { return }
        let isWelcome = state.withLock { state in
            guard state.clients.count < Self.maximumClients else { return false }
            state.clients[client] = state.recent
            return true
        }
        guard isWelcome, (try? loop.watch(client, { [unowned self] in serve(client) })) != nil else {
            state.withLock { $0.clients[client] = nil }
            close(client)
            return
        }
        flush(client)
    }

    /// A client has typed, can take more, or is gone.
    private func serve(_ client: Int32) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(client, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        if count == 0 || count < 0 && errno != EAGAIN && errno != EINTR { return drop(client) }
        // What a guest that reads nothing leaves lying is lost, as on a real line.
        if count > 0 { _ = send(line, buffer, count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL)) }
        flush(client)
    }

    /// The machine has said something. False if there is nothing more.
    @discardableResult
    private func takeOutput() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = recv(line, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        guard count > 0 else {
            if count == 0 { loop.forget(line) }
            return false
        }
        let bytes = buffer[..<count]
        let clients = state.withLock { state in
            write(bytes, &state)
            state.recent += bytes
            state.recent.removeFirst(max(state.recent.count - Self.maximumRecent, 0))
            for client in state.clients.keys { state.clients[client]? += bytes }
            return Array(state.clients.keys)
        }
        for client in clients { flush(client) }
        return true
    }

    private func write(_ bytes: ArraySlice<UInt8>, _ state: inout State) {
        if state.logSize + bytes.count > Self.maximumLog, rename(machine.consoleLog, machine.olderConsoleLog) == 0 {
            close(state.log)
            state.log = open(machine.consoleLog, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o600)
            state.logSize = 0
        }
        // A full disk is no reason to end the machine.
        bytes.withUnsafeBytes { _ = Glibc.write(state.log, $0.baseAddress, $0.count) }
        state.logSize += bytes.count
    }

    private func flush(_ client: Int32) {
        let isGone = state.withLock { state in
            guard let unsent = state.clients[client] else { return false }
            let count = unsent.isEmpty ? 0 : send(client, unsent, unsent.count, Int32(MSG_NOSIGNAL))
            if count < 0 && errno != EAGAIN && errno != EINTR { return true }
            state.clients[client]?.removeFirst(max(count, 0))
            loop.setWantsRoom(unsent.count > max(count, 0), for: client)
            return unsent.count - max(count, 0) > Self.maximumUnsent
        }
        if isGone { drop(client) }
    }

    private func drop(_ client: Int32) {
        guard state.withLock({ $0.clients.removeValue(forKey: client) }) != nil else { return }
        loop.forget(client)
        close(client)
    }

    /// Passes on what the machine said last. To be called when it has ended, and the loop has stopped.
    public func finish() {
        while takeOutput() {}
        unlink(machine.path + "/" + Self.socket)
    }
}

/// A connection to a running machine's console.
public enum ConsoleClient {
    /// A socket, on which first comes what the machine has said lately; nil if it does not run.
    public static func connect(to machine: MachineDirectory) -> Int32? {
        LocalSocket.connect(in: machine.path, ConsoleServer.socket)
    }
}
