import CDavit
import DavitTesting
import FileShares
import Glibc
import MachineModel
import Synchronization

/// A request with room for the answer, in memory of its own.
final class HandMadeMessage: GuestMessage, @unchecked Sendable {
    private let request: UnsafeMutableRawBufferPointer
    private let reply: UnsafeMutableRawBufferPointer
    let readableCount: Int
    let writableCount: Int

    init(_ bytes: [UInt8], room: Int) {
        request = .allocate(byteCount: max(bytes.count, 1), alignment: 8)
        request.copyBytes(from: bytes)
        reply = .allocate(byteCount: max(room, 1), alignment: 8)
        reply.initializeMemory(as: UInt8.self, repeating: 0xEE)
        (readableCount, writableCount) = (bytes.count, room)
    }

    deinit {
        request.deallocate()
        reply.deallocate()
    }

    var answer: [UInt8] { Array(reply) }

    func copyReadable(from offset: Int, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        let count = min(buffer.count, readableCount - offset)
        guard count > 0 else { return 0 }
        buffer.copyBytes(from: request[offset..<offset + count])
        return count
    }

    func copyWritable(at offset: Int, from buffer: UnsafeRawBufferPointer) -> Int {
        let count = min(buffer.count, writableCount - offset)
        guard count > 0 else { return 0 }
        UnsafeMutableRawBufferPointer(rebasing: reply[offset..<offset + count]).copyBytes(from: buffer.prefix(count))
        return count
    }

    func readablePieces(from offset: Int, count: Int) -> [iovec] {
        [iovec(iov_base: request.baseAddress! + offset, iov_len: max(min(count, readableCount - offset), 0))]
    }

    func writablePieces(from offset: Int, count: Int) -> [iovec] {
        [iovec(iov_base: reply.baseAddress! + offset, iov_len: max(min(count, writableCount - offset), 0))]
    }
}

/// A tree on the host, and a guest that speaks FUSE to its server by hand.
final class FUSEGuest {
    static let root = UInt64(FUSE_ROOT_ID)
    /// What a request without an answer ends with.
    static let silence: Int32 = -1

    /// The tree is `share` in it.
    let directory: TemporaryDirectory
    let server: FUSEServer

    init(isReadOnly: Bool = false, keepsSetID: Bool = false) throws {
        directory = try TemporaryDirectory()
        try Tool.run(["mkdir", directory["share"]])
        server = try FUSEServer(
            name: "share0", path: directory["share"], isReadOnly: isReadOnly, keepsSetID: keepsSetID)
        _ = send(
            FUSE_INIT, 0,
            bytes(
                of: fuse_init_in(
                    major: 7, minor: 38, max_readahead: 0, flags: .max, flags2: 0,
                    unused: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))))
    }

    deinit { server.close() }

    /// Runs commands of the host's in the tree.
    func onHost(_ commands: String) throws { try Tool.run(["sh", "-ec", "cd \(directory["share"]); \(commands)"]) }

    func bytes<Value: BitwiseCopyable>(of value: Value) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

    /// Sends what may be no request at all; what was written, and how much the server says that was.
    func sendRaw(_ request: [UInt8], room: Int = 4096) -> (answer: [UInt8], written: Int) {
        let message = HandMadeMessage(request, room: room)
        let written = Mutex<Int?>(nil)
        server.submit(message) { count in written.withLock { $0 = count } }
        while true {
            if let count = written.withLock({ $0 }) { return (message.answer, count) }
            usleep(100)
        }
    }

    /// The error (0 for none) and what comes behind the answer's header.
    func send(
        _ opcode: fuse_opcode, _ node: UInt64, _ body: [UInt8] = [], room: Int = 4096, length: Int? = nil
    ) -> (error: Int32, body: [UInt8]) {
        var header = fuse_in_header()
        header.len = UInt32(length ?? 40 + body.count)
        header.opcode = opcode.rawValue
        header.unique = 7
        header.nodeid = node
        let (answer, written) = sendRaw(bytes(of: header) + body, room: room + 16)
        guard written >= 16 else { return (Self.silence, []) }
        let reply = answer.withUnsafeBytes { $0.loadUnaligned(as: fuse_out_header.self) }
        return (-reply.error, Array(answer[16..<written]))
    }

    func value<Value: BitwiseCopyable>(_ body: [UInt8], _ type: Value.Type, at offset: Int = 0) -> Value {
        body.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: type) }
    }

    func name(_ text: String) -> [UInt8] { Array(text.utf8) + [0] }

    /// The file's number, or an error.
    func lookUp(_ text: String, in node: UInt64 = root) -> (error: Int32, node: UInt64) {
        let (error, body) = send(FUSE_LOOKUP, node, name(text))
        guard error == 0 else { return (error, 0) }
        let found = value(body, fuse_entry_out.self).nodeid
        return found == 0 ? (ENOENT, 0) : (0, found)
    }

    func open(
        _ node: UInt64, _ flags: Int32 = O_RDONLY, _ opcode: fuse_opcode = FUSE_OPEN
    ) -> (error: Int32, handle: UInt64) {
        let (error, body) = send(opcode, node, bytes(of: fuse_open_in(flags: UInt32(flags), open_flags: 0)))
        return (error, error == 0 ? value(body, fuse_open_out.self).fh : 0)
    }

    func create(
        _ text: String, in node: UInt64 = root, flags: Int32 = O_RDWR, mode: UInt32 = 0o100644
    ) -> (error: Int32, node: UInt64, handle: UInt64) {
        let arguments = fuse_create_in(flags: UInt32(flags | O_CREAT), mode: mode, umask: 0, open_flags: 0)
        let (error, body) = send(FUSE_CREATE, node, bytes(of: arguments) + name(text))
        guard error == 0 else { return (error, 0, 0) }
        return (0, value(body, fuse_entry_out.self).nodeid, value(body, fuse_open_out.self, at: 128).fh)
    }

    func read(_ node: UInt64, _ handle: UInt64, at offset: UInt64 = 0, size: UInt32 = 4096) -> (
        error: Int32, body: [UInt8]
    ) {
        var arguments = fuse_read_in()
        (arguments.fh, arguments.offset, arguments.size) = (handle, offset, size)
        return send(FUSE_READ, node, bytes(of: arguments))
    }

    func write(
        _ node: UInt64, _ handle: UInt64, _ text: String, at offset: UInt64 = 0, size: UInt32? = nil, flags: Int32 = 0
    ) -> Int32 {
        var arguments = fuse_write_in()
        (arguments.fh, arguments.offset, arguments.size) = (handle, offset, size ?? UInt32(text.utf8.count))
        arguments.flags = UInt32(flags)
        return send(FUSE_WRITE, node, bytes(of: arguments) + Array(text.utf8)).error
    }

    func rename(_ old: String, _ new: String, to directory: UInt64 = root, flags: UInt32 = 0) -> Int32 {
        let arguments = fuse_rename2_in(newdir: directory, flags: flags, padding: 0)
        return send(FUSE_RENAME2, Self.root, bytes(of: arguments) + name(old) + name(new)).error
    }
}
