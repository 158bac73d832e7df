import CDavit
import Glibc
import HostLinux

/// Unix sockets in a machine's directory. However long the directory's path is, the socket's is short: by way of /proc.
enum LocalSocket {
    private static let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)

    /// A socket that listens, in the place of a dead one of that name.
    static func listen(in directory: String, _ name: String) throws(StoreError) -> Int32 {
        unlink(directory + "/" + name)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else { throw .host("make a socket") }
        let isBound = withAddress(directory, name) { bind(descriptor, $0, $1) == 0 }
        guard isBound, Glibc.listen(descriptor, 64) == 0 else {
            let code = errno
            close(descriptor)
            throw .host("listen on '\(directory)/\(name)'", code: code)
        }
        return descriptor
    }

    /// A connection, which waits in its calls; nil if nobody listens.
    static func connect(in directory: String, _ name: String) -> Int32? {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        if withAddress(directory, name, { Glibc.connect(descriptor, $0, $1) == 0 }) { return descriptor }
        close(descriptor)
        return nil
    }

    /// The next connection, which does not wait in its calls; nil if there is none.
    static func accept(_ listener: Int32) -> Int32? {
        let descriptor = davit_socket_accept(listener)
        return descriptor >= 0 ? descriptor : nil
    }

    /// The process that listens, or did so when the connection was made.
    static func peer(of connection: Int32) -> pid_t? {
        let process = davit_socket_peer(connection)
        return process > 0 ? process : nil
    }

    private static func withAddress(
        _ directory: String, _ name: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Bool
    ) -> Bool {
        let place = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard place >= 0 else { return false }
        defer {
            let code = errno
            close(place)
            errno = code
        }
        // Fits: the names are those of this module.
        guard let address = sockaddr_un(path: "/proc/self/fd/\(place)/\(name)") else { return false }
        return SocketAddress.with(address, body)
    }
}
