import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A serial line's far end behind a Unix socket: one program at a time. What the guest says while nobody is connected is lost, as on a line
/// with nothing plugged in; a program that does not read makes the guest wait.
public final class SocketChannel: ConsoleChannel {
    private struct State {
        var client: Int32?
        /// What the program has not taken yet.
        var output: [UInt8] = []
        /// What the guest has not taken yet.
        var input: [UInt8] = []
        /// Output was refused, and room is to be told of.
        var hasRefused = false
    }

    /// In a struct of their own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
    private struct Callbacks {
        var receive: (@Sendable (UnsafeRawBufferPointer) -> Int)?
        var room: (@Sendable () -> Void)?
        var connection: (@Sendable (Bool) -> Void)?
    }

    private static let outputLimit = 1 << 16
    /// How long the end waits for a program that has stopped reading, in looks of 10 ms.
    private static let patience = 50

    private let path: String
    private let loop: EventLoop
    private let listener: Int32
    /// Guards the connection; nobody is called under it.
    private let state = Mutex(State())
    /// Guards who is called. Held while they are, so that no call is under way any more when they have been replaced.
    private let callbacks = Mutex(Callbacks())

    /// Listens at `path`, where a socket that nobody serves is replaced.
    public init(loop: EventLoop, path: String) throws(SystemError) {
        self.path = path
        self.loop = loop
        listener = try UnixSocket.listen(path, backlog: 1)
        do throws(SystemError) {
            try loop.watch(listener) { [unowned self] in acceptClient() }
        } catch {
            Glibc.close(listener)
            UnixSocket.remove(path)
            throw error
        }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            guard state.client != nil else { return bytes.count }
            guard state.output.count + bytes.count <= Self.outputLimit else {
                state.hasRefused = true
                return 0
            }
            state.output += bytes
            flush(&state)
            return bytes.count
        }
    }

    public func onWritable(_ callback: (@Sendable () -> Void)?) { callbacks.withLock { $0.room = callback } }

    public func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {
        callbacks.withLock { $0.receive = receiver }
        resumeReading()
    }

    public func onConnection(_ callback: (@Sendable (Bool) -> Void)?) {
        callbacks.withLock { callbacks in
            callbacks.connection = callback
            callback?(state.withLock { $0.client != nil })
        }
    }

    public func resumeReading() { loop.perform { [weak self] in self?.deliver() } }

    /// Waits for nobody anyhow, but at the end.
    public func hurry() {}

    public func close() {
        callbacks.withLock { $0 = Callbacks() }
        loop.forget(listener)
        Glibc.close(listener)
        UnixSocket.remove(path)
        for _ in 0..<Self.patience {
            let isDone = state.withLock { state in
                flush(&state)
                return state.client == nil || state.output.isEmpty
            }
            if isDone { break }
            usleep(10_000)
        }
        drop()
    }

    // MARK: on the loop's thread

    private func acceptClient() {
        guard let client = UnixSocket.accept(listener) else { return }
        let isWelcome = state.withLock { state in
            guard state.client == nil else { return false }
            state.client = client
            return true
        }
        guard isWelcome else {
            Glibc.close(client)
            return
        }
        do throws(SystemError) {
            try loop.watch(client) { [weak self] in self?.serve() }
        } catch {
            return drop()
        }
        callbacks.withLock { $0.connection?(true) }
    }

    /// The program has sent something, has made room, or is gone.
    private func serve() {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let (isGone, hasRoom) = state.withLock { state in
            guard let client = state.client else { return (false, false) }
            flush(&state)
            let hasRoom = state.hasRefused && state.output.count < Self.outputLimit / 2
            if hasRoom { state.hasRefused = false }
            guard state.input.isEmpty else { return (false, hasRoom) }
            let count = recv(client, &buffer, buffer.count, 0)
            if count > 0 { state.input = Array(buffer[..<count]) }
            return (count == 0 || count < 0 && errno != EAGAIN && errno != EINTR, hasRoom)
        }
        if isGone { drop() }
        if hasRoom { callbacks.withLock { $0.room?() } }
        deliver()
    }

    private func deliver() {
        let bytes = state.withLock { $0.input }
        guard !bytes.isEmpty else { return }
        let taken = callbacks.withLock { callbacks in bytes.withUnsafeBytes { callbacks.receive?($0) ?? 0 } }
        state.withLock { state in
            state.input.removeFirst(min(max(taken, 0), state.input.count))
            if let client = state.client { loop.setEnabled(state.input.isEmpty, for: client) }
        }
    }

    private func flush(_ state: inout State) {
        guard let client = state.client, !state.output.isEmpty else { return }
        let count = send(client, state.output, state.output.count, Int32(MSG_NOSIGNAL))
        state.output.removeFirst(max(count, 0))
        loop.setWantsRoom(!state.output.isEmpty, for: client)
    }

    private func drop() {
        let client = state.withLock { state in
            defer { state = State() }
            return state.client
        }
        guard let client else { return }
        loop.forget(client)
        Glibc.close(client)
        callbacks.withLock { callbacks in
            callbacks.connection?(false)
            // What the guest still has to say is lost now.
            callbacks.room?()
        }
    }
}
