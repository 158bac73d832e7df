import CDavit
import Glibc

/// Unix sockets by the path that a user has given (unix(7)); their calls do not wait.
public enum UnixSocket {
    private static let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)

    /// One that listens, in the place of one that a dead process has left. Throws EADDRINUSE if a process listens there.
    public static func listen(_ path: String, backlog: Int32 = 64) throws(SystemError) -> Int32 {
        removeDead(path)
        return try make(path) { bind($0, $1, $2) == 0 && Glibc.listen($0, backlog) == 0 }
    }

    /// The next connection; nil if there is none.
    public static func accept(_ listener: Int32) -> Int32? {
        let descriptor = davit_socket_accept(listener)
        return descriptor >= 0 ? descriptor : nil
    }

    public static func connect(_ path: String) throws(SystemError) -> Int32 {
        try make(path) { Glibc.connect($0, $1, $2) == 0 }
    }

    /// Removes a socket that nobody listens on any more. Anything else stays.
    public static func removeDead(_ path: String) {
        do throws(SystemError) {
            close(try connect(path))
        } catch {
            if error.code == ECONNREFUSED { remove(path) }
        }
    }

    /// Removes a socket; anything else stays.
    public static func remove(_ path: String) {
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK { unlink(path) }
    }

    private static func make(
        _ path: String, _ use: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Bool
    ) throws(SystemError) -> Int32 {
        guard let address = sockaddr_un(path: path) else { throw SystemError("socket", code: ENAMETOOLONG) }
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { throw SystemError("socket") }
        guard SocketAddress.with(address, { use(descriptor, $0, $1) }) else {
            let error = SystemError("bind")
            close(descriptor)
            throw error
        }
        return descriptor
    }
}
