import CDavit
import Glibc
import HostLinux
import Synchronization

/// What can be asked of a running machine, by its name on the control socket.
public enum ControlRequest: String, Sendable, CaseIterable {
    /// How it is: answered by `running` or `paused`.
    case status
    /// Presses the power button.
    case powerButton
    /// Pulls the plug.
    case kill
    case pause
    case resume
    /// A break on the first serial port.
    case sendBreak
    /// The software engine is to go on with the guest, or KVM: answered by `changing`.
    case useSoft, useKVM
    /// How the last change ended: answered by `changing`, `changed`, or a sentence that says why not.
    case change
    /// Answered at the run's end, by its record.
    case wait
}

/// A running machine's control socket: a line of JSON asks, a line answers. Connections may stay and ask again.
public final class ControlServer: Sendable {
    private struct Client {
        var unread: [UInt8] = []
        var isWaiting = false
    }

    private static let maximumLine = 4096
    private static let maximumClients = 256

    private let loop: EventLoop
    private let listener: Int32
    private let path: String
    private let answer: @Sendable (ControlRequest) -> String
    /// Guards who is connected.
    private let clients = Mutex<[Int32: Client]>([:])

    /// `answer` carries a request out, on the loop's thread, and says how the machine is then.
    public init(
        for machine: MachineDirectory, loop: EventLoop, answer: @escaping @Sendable (ControlRequest) -> String
    ) throws(StoreError) {
        self.loop = loop
        self.answer = answer
        path = machine.path + "/" + ControlClient.socket
        listener = try LocalSocket.listen(in: machine.path, ControlClient.socket)
        do throws(SystemError) {
            try loop.watch(listener) { [unowned self] in acceptClient() }
        } catch {
            throw StoreError("the control socket cannot be served: \(error)")
        }
    }

    private func acceptClient() {
        guard let client = LocalSocket.accept(listener) else { return }
        let isWelcome = clients.withLock { clients in
            guard clients.count < Self.maximumClients else { return false }
            clients[client] = Client()
            return true
        }
        guard isWelcome, (try? loop.watch(client, { [unowned self] in receive(from: client) })) != nil else {
            clients.withLock { $0[client] = nil }
            Glibc.close(client)
            return
        }
    }

    private func receive(from client: Int32) {
        var buffer = [UInt8](repeating: 0, count: Self.maximumLine)
        let count = read(client, &buffer, buffer.count)
        if count < 0 && (errno == EAGAIN || errno == EINTR) { return }
        guard count > 0 else { return drop(client) }
        let lines = clients.withLock { clients -> [[UInt8]] in
            let bytes = (clients[client]?.unread ?? []) + buffer[..<count]
            let pieces = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            clients[client]?.unread = Array(pieces.last ?? [])
            return pieces.dropLast().map(Array.init)
        }
        for line in lines { obey(line, from: client) }
        if clients.withLock({ $0[client]?.unread.count ?? 0 > Self.maximumLine }) { drop(client) }
    }

    private func obey(_ line: [UInt8], from client: Int32) {
        let name = String(validating: line, as: UTF8.self).flatMap(JSON.init(parsing:))?["do"]?.text
        guard let request = name.flatMap(ControlRequest.init(rawValue:)) else {
            return send(JSON(["error": .string("this is not understood")]), to: client)
        }
        if request == .wait {
            clients.withLock { $0[client]?.isWaiting = true }
        } else {
            send(JSON(["state": .string(answer(request))]), to: client)
        }
    }

    private func send(_ json: JSON, to client: Int32) {
        let bytes = Array((json.description + "\n").utf8)
        // A client that does not read its answers is cut off.
        if Glibc.write(client, bytes, bytes.count) != bytes.count { drop(client) }
    }

    private func drop(_ client: Int32) {
        guard clients.withLock({ $0.removeValue(forKey: client) }) != nil else { return }
        loop.forget(client)
        Glibc.close(client)
    }

    /// Tells those who wait, and is gone. Not to be called on the loop's thread.
    public func close(_ end: EndRecord) {
        loop.forget(listener)
        unlink(path)
        let waiting = clients.withLock { $0.filter(\.value.isWaiting).map(\.key) }
        for client in waiting { send(JSON(["end": end.json]), to: client) }
        Glibc.close(listener)
    }
}
