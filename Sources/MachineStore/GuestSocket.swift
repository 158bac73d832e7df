import Glibc

/// A running machine's vsock, from the host's side: a Unix socket in its directory, which asks where to.
public enum GuestSocket {
    public static let name = "vsock"

    /// A connection to a port of the guest's; nil if the machine does not run, nobody listens there, or the guest does not answer in
    /// `seconds`.
    public static func connect(to machine: MachineDirectory, port: UInt32, seconds: Int = 10) -> Int32? {
        guard let connection = LocalSocket.connect(in: machine.path, name) else { return nil }
        let line = Array("CONNECT \(port)\n".utf8)
        guard send(connection, line, line.count, Int32(MSG_NOSIGNAL)) == line.count,
            let answer = answer(on: connection, seconds: seconds), answer.starts(with: "OK ".utf8)
        else {
            close(connection)
            return nil
        }
        return connection
    }

    /// A short line without its end, and nothing that comes behind it.
    private static func answer(on connection: Int32, seconds: Int) -> [UInt8]? {
        var line: [UInt8] = []
        while line.count < 32 {
            var wait = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
            let count = poll(&wait, 1, Int32(seconds * 1000))
            if count < 0 && errno == EINTR { continue }
            var byte: UInt8 = 0
            guard count > 0, recv(connection, &byte, 1, 0) == 1 else { return nil }
            if byte == UInt8(ascii: "\n") { return line }
            line.append(byte)
        }
        return nil
    }
}
