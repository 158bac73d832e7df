import Glibc
import HostLinux

/// Where a debugger is waited for.
public enum GDBAddress: Equatable, Sendable, CustomStringConvertible {
    case ip4(String, port: UInt16)
    case ip6(String, port: UInt16)
    case unix(String)

    /// `1234`, `0.0.0.0:1234`, `[::1]:1234` or `unix:PATH`; nil if it is none of these.
    public init?(parsing text: String) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            guard !path.isEmpty, sockaddr_un(path: path) != nil else { return nil }
            self = .unix(path)
            return
        }
        let colon = text.lastIndex(of: ":")
        guard let port = UInt16(colon.map { text[text.index(after: $0)...] } ?? text[...]), port > 0 else { return nil }
        guard let colon else {
            self = .ip4("127.0.0.1", port: port)
            return
        }
        var host = String(text[..<colon])
        var place = in6_addr()
        if host.hasPrefix("["), host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
            guard inet_pton(AF_INET6, host, &place) == 1 else { return nil }
            self = .ip6(host, port: port)
        } else {
            guard inet_pton(AF_INET, host, &place) == 1 else { return nil }
            self = .ip4(host, port: port)
        }
    }

    /// As GDB's `target remote` takes it.
    public var description: String {
        switch self {
        case .ip4(let host, let port): "\(host):\(port)"
        case .ip6(let host, let port): "[\(host)]:\(port)"
        case .unix(let path): path
        }
    }

    var family: Int32 {
        switch self {
        case .ip4: AF_INET
        case .ip6: AF_INET6
        case .unix: AF_UNIX
        }
    }

    /// Calls `body` with the address as bind(2) and connect(2) take it.
    func withSocketAddress<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        switch self {
        case .ip4(let host, let port):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = port.bigEndian
            inet_pton(AF_INET, host, &address.sin_addr)
            return SocketAddress.with(address, body)
        case .ip6(let host, let port):
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_port = port.bigEndian
            inet_pton(AF_INET6, host, &address.sin6_addr)
            return SocketAddress.with(address, body)
        // Fits, as `init` has seen.
        case .unix(let path): return SocketAddress.with(sockaddr_un(path: path) ?? sockaddr_un(), body)
        }
    }
}
