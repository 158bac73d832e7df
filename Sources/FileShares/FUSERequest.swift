import CDavit
import Glibc
import MachineModel

/// A FUSE request: header and arguments, copied once.
struct FUSERequest {
    static let headerSize = MemoryLayout<fuse_in_header>.size
    static let replyHeaderSize = MemoryLayout<fuse_out_header>.size
    /// Two names, or an extended attribute with its name, have room.
    private static let mostCopied = (64 << 10) + 4096

    let header: fuse_in_header
    let message: any GuestMessage
    /// What comes after the header; of a write, its arguments only.
    let body: [UInt8]
    /// Bytes after the header.
    let count: Int

    /// Nil if there is not even a header, or the request says that it is longer than it is.
    init?(_ message: any GuestMessage) {
        self.message = message
        var header = fuse_in_header()
        let copied = withUnsafeMutableBytes(of: &header) { message.copyReadable(from: 0, into: $0) }
        self.header = header
        count = Int(header.len) - Self.headerSize
        guard copied == Self.headerSize, count >= 0, Int(header.len) <= message.readableCount else { return nil }
        let limit = header.opcode == FUSE_WRITE.rawValue ? MemoryLayout<fuse_write_in>.size : Self.mostCopied
        let size = min(count, limit)
        body = [UInt8](unsafeUninitializedCapacity: size) { buffer, filled in
            filled = message.copyReadable(
                from: Self.headerSize,
                into: UnsafeMutableRawBufferPointer(UnsafeMutableBufferPointer(rebasing: buffer[..<size])))
        }
    }

    /// The bytes that an answer may have.
    var room: Int { max(message.writableCount - Self.replyHeaderSize, 0) }

    /// The arguments, a plain structure of integers.
    func arguments<Value: BitwiseCopyable>(_ value: Value, at offset: Int = 0) throws(FileError) -> Value {
        guard offset <= body.count, body.count - offset >= MemoryLayout<Value>.size else { throw FileError(EINVAL) }
        return body.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Value.self) }
    }

    /// Strings behind `offset` bytes of arguments, each of which ends with a zero.
    func strings(_ wanted: Int, at offset: Int = 0) throws(FileError) -> [ArraySlice<UInt8>] {
        guard count <= Self.mostCopied else { throw FileError(ENAMETOOLONG) }
        var result: [ArraySlice<UInt8>] = []
        var start = offset
        while result.count < wanted {
            guard start < body.count, let end = body[start...].firstIndex(of: 0) else { throw FileError(EINVAL) }
            result.append(body[start..<end])
            start = end + 1
        }
        return result
    }

    func name(at offset: Int = 0) throws(FileError) -> FileName { try FileName(try strings(1, at: offset)[0]) }
}

/// What a request is answered with.
enum FUSEReply {
    /// Nothing: the guest waits for none.
    case none
    case bytes([UInt8])
    /// So many bytes are in the guest's memory already.
    case written(Int)

    static let empty = FUSEReply.bytes([])

    static func value<Value: BitwiseCopyable>(_ value: Value) -> FUSEReply {
        .bytes(withUnsafeBytes(of: value) { Array($0) })
    }
}
