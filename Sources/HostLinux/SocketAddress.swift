import Glibc

/// Addresses as bind(2) and connect(2) take them.
public enum SocketAddress {
    /// Calls `body` with a structure for one family: `sockaddr_in`, `sockaddr_un` and their like.
    public static func with<Address, Result>(
        _ address: Address, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
    ) -> Result {
        // Safe: each such structure begins with the family that says what it is.
        withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<Address>.size)) }
        }
    }
}

extension sockaddr_un {
    /// Of a Unix socket (unix(7)); nil if the path does not fit with the 0 at its end.
    public init?(path: String) {
        self.init()
        sun_family = sa_family_t(AF_UNIX)
        let bytes = path.utf8
        guard bytes.count < MemoryLayout.size(ofValue: sun_path) else { return nil }
        withUnsafeMutableBytes(of: &sun_path) { $0.copyBytes(from: bytes) }
    }
}
