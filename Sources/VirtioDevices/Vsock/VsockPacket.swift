// The socket device: virtio 1.2, 5.10.

/// struct virtio_vsock_hdr (5.10.6), 44 bytes on the wire.
struct VsockHeader: Equatable, Sendable {
    static let size = 44

    var sourceCID: UInt64 = 0
    var destinationCID: UInt64 = 0
    var sourcePort: UInt32 = 0
    var destinationPort: UInt32 = 0
    var length: UInt32 = 0
    var type: UInt16 = VsockType.stream
    var operation: UInt16 = 0
    var flags: UInt32 = 0
    var bufferSize: UInt32 = 0
    var forwarded: UInt32 = 0

    init() {}

    /// Copied once from a chain's beginning; nil if it is shorter.
    init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.size else { return nil }
        func field<Value: FixedWidthInteger>(_ offset: Int, _: Value.Type) -> Value {
            (0..<MemoryLayout<Value>.size).reduce(0) { $0 | Value(truncatingIfNeeded: bytes[offset + $1]) << ($1 * 8) }
        }
        sourceCID = field(0, UInt64.self)
        destinationCID = field(8, UInt64.self)
        sourcePort = field(16, UInt32.self)
        destinationPort = field(20, UInt32.self)
        length = field(24, UInt32.self)
        type = field(28, UInt16.self)
        operation = field(30, UInt16.self)
        flags = field(32, UInt32.self)
        bufferSize = field(36, UInt32.self)
        forwarded = field(40, UInt32.self)
    }

    var bytes: [UInt8] {
        var writer = ConfigurationWriter()
        writer.append(sourceCID)
        writer.append(destinationCID)
        for field in [sourcePort, destinationPort, length] { writer.append(field) }
        writer.append(type)
        writer.append(operation)
        for field in [flags, bufferSize, forwarded] { writer.append(field) }
        return writer.bytes
    }
}

/// Operations (5.10.6).
enum VsockOperation {
    static let request: UInt16 = 1
    static let response: UInt16 = 2
    static let reset: UInt16 = 3
    static let shutdown: UInt16 = 4
    static let data: UInt16 = 5
    static let creditUpdate: UInt16 = 6
    static let creditRequest: UInt16 = 7
}

enum VsockType {
    static let stream: UInt16 = 1
}

/// Flags of a shutdown: what its sender will not do any more (5.10.6.5).
enum VsockShutdown {
    static let receive: UInt32 = 1
    static let send: UInt32 = 2
    static let both = receive | send
}

/// Well-known context ids.
enum VsockCID {
    static let host: UInt64 = 2
}
