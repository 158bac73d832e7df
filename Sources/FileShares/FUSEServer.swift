import CDavit
import Glibc
import HostLinux
import MachineModel

/// A directory of the host's and what is below it, for a guest that speaks FUSE (linux/fuse.h; virtio 1.2, 5.11).
///
/// There is no way out of the tree: every file is held by a descriptor, and reached from its directory's by one name that is neither
/// `..` nor has a slash in it; symbolic links are the guest's to follow. Only regular files and directories are ever opened. Numbers
/// that the guest gives for files and handles are looked up in tables, and never used again.
///
/// Locks are not served: they hold among the guest's own processes. Nor are ioctls and access control lists.
public final class FUSEServer: FileServer {
    private static let threads = 8
    /// For how long a guest trusts what it was told of names and attributes, in seconds.
    static let validity: UInt64 = 1

    let inodes: InodeTable
    let files = OpenFileTable()
    let owners = Owners()
    let isReadOnly: Bool
    let keepsSetID: Bool
    /// What this process takes away from the modes of new files.
    let umask: mode_t
    private let workers: WorkerPool

    /// Serves the directory at `path`, for which it is opened once and for all. With `keepsSetID` the guest may make programs that run
    /// with their owner's rights on the host too, and give them capabilities.
    public init(name: String, path: String, isReadOnly: Bool, keepsSetID: Bool = false) throws(SystemError) {
        let descriptor: SharedDescriptor
        do throws(FileError) {
            descriptor = try SharedDescriptor {
                open(path, Int32(bitPattern: DAVIT_O_PATH.rawValue) | O_DIRECTORY | O_CLOEXEC)
            }
            inodes = try InodeTable(root: descriptor)
            guard access(descriptor.path + "/.", isReadOnly ? R_OK | X_OK : R_OK | W_OK | X_OK) == 0 else {
                throw .last
            }
        } catch {
            throw SystemError("open", code: error.code)
        }
        self.isReadOnly = isReadOnly
        self.keepsSetID = keepsSetID
        umask = Self.currentUmask()
        workers = try WorkerPool(name: name, limit: Self.threads)
    }

    /// proc(5): /proc/self/status. umask(2) would have to change it.
    private static func currentUmask() -> mode_t {
        let descriptor = open("/proc/self/status", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return 0o777 }
        defer { Glibc.close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = max(read(descriptor, &bytes, bytes.count), 0)
        let line = String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
            .first { $0.hasPrefix("Umask:") }
        return line.flatMap { mode_t($0.dropFirst(6).filter { !$0.isWhitespace }, radix: 8) } ?? 0o777
    }

    public func submit(_ message: any GuestMessage, completion: @escaping @Sendable (Int) -> Void) {
        workers.perform { [self] in completion(serve(message)) }
    }

    public func endSession() {
        files.removeAll()
        inodes.forgetAll()
    }

    public func close() {
        workers.stop()
        endSession()
    }

    /// Carries a request out and writes the answer; its length in bytes.
    private func serve(_ message: any GuestMessage) -> Int {
        guard let request = FUSERequest(message) else {
            // It cannot be told from which request, but that there was one.
            return reply(to: fuse_in_header(), message, error: EINVAL, count: 0)
        }
        do throws(FileError) {
            switch try answer(request) {
            case .none: return 0
            case .written(let count): return reply(to: request.header, message, error: 0, count: count)
            case .bytes(let bytes):
                guard bytes.count <= request.room else { throw FileError(EIO) }
                bytes.withUnsafeBytes { _ = message.copyWritable(at: FUSERequest.replyHeaderSize, from: $0) }
                return reply(to: request.header, message, error: 0, count: bytes.count)
            }
        } catch {
            return reply(to: request.header, message, error: error.code, count: 0)
        }
    }

    private func reply(to header: fuse_in_header, _ message: any GuestMessage, error: Int32, count: Int) -> Int {
        let size = FUSERequest.replyHeaderSize + count
        guard message.writableCount >= FUSERequest.replyHeaderSize else { return 0 }
        let header = fuse_out_header(len: UInt32(truncatingIfNeeded: size), error: -error, unique: header.unique)
        withUnsafeBytes(of: header) { _ = message.copyWritable(at: 0, from: $0) }
        return size
    }

    // MARK: requests

    private func answer(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let opcode = fuse_opcode(rawValue: request.header.opcode)
        if isReadOnly, Self.changing.contains(opcode.rawValue) { throw FileError(EROFS) }
        switch opcode {
        case FUSE_INIT: return try initialize(request)
        case FUSE_DESTROY:
            endSession()
            return .empty
        case FUSE_FORGET, FUSE_BATCH_FORGET:
            // Nobody hears of an error.
            try? forget(request)
            return .none
        case FUSE_INTERRUPT: return .none
        default:
            let inode = try inodes[request.header.nodeid]
            if let reply = try answerOnNames(request, opcode, inode) { return reply }
            if let reply = try answerOnContents(request, opcode, inode) { return reply }
            if let reply = try answerOnAttributes(request, opcode, inode) { return reply }
            throw FileError(ENOSYS)
        }
    }

    /// What changes the tree, whatever its arguments. Opening a file may too.
    private static let changing: Set<UInt32> = Set(
        [
            FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_RENAME2,
            FUSE_LINK, FUSE_WRITE, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_CREATE, FUSE_FALLOCATE,
            FUSE_COPY_FILE_RANGE, FUSE_TMPFILE,
        ].map(\.rawValue))

    /// A driver begins. It may be another one than before.
    private func initialize(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        // Without the second word of flags up to 7.35.
        let least = 16
        guard request.body.count >= least else { throw FileError(EINVAL) }
        var arguments = fuse_init_in()
        withUnsafeMutableBytes(of: &arguments) { bytes in
            request.body.withUnsafeBytes {
                bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0.prefix(bytes.count)))
            }
        }
        var reply = fuse_init_out()
        reply.major = UInt32(FUSE_KERNEL_VERSION)
        reply.minor = min(arguments.minor, UInt32(FUSE_KERNEL_MINOR_VERSION))
        // An older one cannot be spoken to; a newer one tries again with ours.
        if arguments.major > reply.major { return .value(reply) }
        guard arguments.major == reply.major, arguments.minor >= 31 else { throw FileError(EPROTO) }
        endSession()
        let wanted =
            UInt32(FUSE_ASYNC_READ) | UInt32(FUSE_ATOMIC_O_TRUNC) | UInt32(FUSE_BIG_WRITES)
            | UInt32(FUSE_AUTO_INVAL_DATA) | UInt32(FUSE_DO_READDIRPLUS) | UInt32(FUSE_READDIRPLUS_AUTO)
            | UInt32(FUSE_ASYNC_DIO) | UInt32(FUSE_PARALLEL_DIROPS) | UInt32(FUSE_MAX_PAGES)
            | UInt32(FUSE_CACHE_SYMLINKS) | UInt32(FUSE_HANDLE_KILLPRIV_V2)
        reply.flags = arguments.flags & wanted
        reply.max_readahead = arguments.max_readahead
        reply.max_background = 64
        reply.congestion_threshold = 48
        reply.max_write = 1 << 20
        reply.max_pages = 256
        reply.time_gran = 1
        return .value(reply)
    }

    private func forget(_ request: FUSERequest) throws(FileError) {
        if request.header.opcode == FUSE_FORGET.rawValue {
            inodes.forget(request.header.nodeid, count: try request.arguments(fuse_forget_in()).nlookup)
            return
        }
        let count = Int(try request.arguments(fuse_batch_forget_in()).count)
        let size = MemoryLayout<fuse_forget_one>.size
        let first = MemoryLayout<fuse_batch_forget_in>.size
        // No more than there are, whatever it says.
        for index in 0..<min(count, (request.body.count - first) / size) {
            let one = try request.arguments(fuse_forget_one(), at: first + index * size)
            inodes.forget(one.nodeid, count: one.nlookup)
        }
    }
}
