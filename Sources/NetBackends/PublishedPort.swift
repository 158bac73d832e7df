import Glibc

/// A port of the host's that leads to one of the guest's.
public struct PublishedPort: Equatable, Sendable {
    public enum Transport: String, Equatable, Sendable {
        case tcp, udp
    }

    public var transport: Transport
    /// The host's address; nil for all.
    public var address: String?
    public var hostPort: UInt16
    public var guestPort: UInt16

    /// Reads `[tcp:|udp:][ADDRESS:]HOST:GUEST`, such as `2222:22` or `udp:127.0.0.1:5353:53`. Nil if it is nothing of the kind.
    public init?(_ text: String) {
        var parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        transport = .tcp
        if let first = parts.first, let named = Transport(rawValue: first) {
            transport = named
            parts.removeFirst()
        }
        guard parts.count == 2 || parts.count == 3, let guest = UInt16(parts[parts.count - 1]), guest > 0,
            let host = UInt16(parts[parts.count - 2]), host > 0
        else { return nil }
        if parts.count == 3 {
            var place = in_addr()
            guard inet_pton(AF_INET, parts[0], &place) == 1 else { return nil }
            address = parts[0]
        }
        hostPort = host
        guestPort = guest
    }

    /// As passt's -t and -u take it.
    var specification: String { "\(address.map { $0 + "/" } ?? "")\(hostPort):\(guestPort)" }

    /// Throws if another program has the host's port.
    func check() throws(NetError) {
        let descriptor = socket(AF_INET, Int32((transport == .tcp ? SOCK_STREAM : SOCK_DGRAM).rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var on: Int32 = 1
        if transport == .tcp {
            setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, socklen_t(MemoryLayout<Int32>.size))
        }
        var place = sockaddr_in()
        place.sin_family = sa_family_t(AF_INET)
        place.sin_port = hostPort.bigEndian
        if let address { inet_pton(AF_INET, address, &place.sin_addr) }
        // Safe: a sockaddr_in is a sockaddr of its family.
        let isFree = withUnsafePointer(to: &place) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard !isFree else { return }
        let reason = errno == EADDRINUSE ? "is in use" : "cannot be had (\(String(cString: strerror(errno))))"
        throw NetError(.refused, "the host's \(transport.rawValue) port \(hostPort) \(reason); publish another")
    }
}
