import CDavit
import Glibc

/// A connection to a running machine's control socket.
public final class ControlClient: Sendable {
    static let socket = "control"

    private let connection: Int32
    private let machine: MachineDirectory

    /// Nil if no process answers there: the machine does not run, or is just beginning or ending to.
    public init?(_ machine: MachineDirectory) {
        guard let connection = LocalSocket.connect(in: machine.path, Self.socket) else { return nil }
        self.connection = connection
        self.machine = machine
    }

    deinit { close(connection) }

    /// The machine's process.
    public var process: pid_t? { LocalSocket.peer(of: connection) }

    /// Asks, and returns how the machine is then, `running` or `paused`; nil if it has ended, or does not answer in `seconds`.
    public func ask(_ request: ControlRequest, seconds: Int = 5) -> String? {
        guard send(request) else { return nil }
        return line(milliseconds: Int32(seconds * 1000)).flatMap { JSON(parsing: $0)?["state"]?.text }
    }

    /// Waits for the run's end, for `seconds` at most. Nil when that time is over; a process that was killed leaves status 137.
    public func waitForEnd(seconds: Int? = nil) -> EndRecord? {
        guard send(.wait) else { return machine.end ?? Self.killed }
        guard let line = line(milliseconds: seconds.map { Int32($0 * 1000) } ?? -1) else { return nil }
        if let end = JSON(parsing: line)?["end"].flatMap(EndRecord.init) { return end }
        return machine.end ?? Self.killed
    }

    private static var killed: EndRecord {
        EndRecord(status: 128 + SIGKILL, message: "its process was killed", time: Int64(time(nil)))
    }

    private func send(_ request: ControlRequest) -> Bool {
        let bytes = Array((JSON(["do": .string(request.rawValue)]).description + "\n").utf8)
        return Glibc.send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count
    }

    /// The next line; empty when the other end is gone, nil when the time is over.
    private func line(milliseconds: Int32) -> String? {
        var line: [UInt8] = []
        while true {
            var request = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
            let count = poll(&request, 1, milliseconds)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return nil }
            var byte: UInt8 = 0
            guard read(connection, &byte, 1) == 1 else { return "" }
            if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
    }
}
