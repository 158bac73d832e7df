import CDavit
import Glibc
import HostLinux
import MachineModel
import Synchronization

/// How writes reach the host's disk.
public enum CacheMode: String, CaseIterable, Sendable {
    /// Through the host's page cache; a flush makes them durable.
    case writeback
    /// Past the page cache where addresses are aligned for it; a flush makes them durable.
    case none
    /// Through the page cache, and a flush does nothing: lost if the host fails.
    case unsafe
}

/// An image's file on the host, locked: for one writer alone, or for any number of readers. Any thread may call.
///
/// Bytes past its end read as zeros, but those that it had once must not be gone.
final class HostFile: Sendable {
    /// The path as the user gave it.
    let path: String
    let descriptor: Int32
    /// The same file with `O_DIRECT`, or -1.
    private let direct: Int32
    let cache: CacheMode
    let isWritable: Bool
    let isDevice: Bool
    /// What direct I/O is aligned to, in bytes.
    static let directAlignment = 4096
    /// Where the file ends, in bytes, as far as this process knows.
    private let knownEnd: Atomic<UInt64>
    /// An `fdatasync` has failed: the kernel has forgotten what it could not write, so nothing later may pass for durable.
    private let isBroken = Atomic<Bool>(false)

    let identity: FileIdentity

    enum Creation: Sendable {
        case mustExist
        /// The file must not exist yet.
        case new
    }

    /// Opens and locks a regular file or block device.
    init(
        path: String, writable: Bool, cache: CacheMode = .writeback, creation: Creation = .mustExist
    ) throws(DiskError) {
        // Without O_NONBLOCK a FIFO would hold us up until someone writes.
        var flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK
        if creation == .new { flags |= O_CREAT | O_EXCL }
        let descriptor = open(path, flags, 0o644)
        guard descriptor >= 0 else {
            let code = errno
            let mend =
                switch code {
                case ENOENT: "give the path of an existing file"
                case EEXIST: "remove it first, or give another name"
                case EISDIR: "give the path of a file"
                default:
                    writable
                        ? "give a file that you may read and write, or use it read-only"
                        : "give a file that you may read"
                }
            throw DiskError(
                .unreadable, file: path, "cannot open it (\(String(cString: strerror(code))))", mend: mend)
        }
        var keepsOpen = false
        defer { if !keepsOpen { close(descriptor) } }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw Self.failure(path, "examine") }
        let kind = status.st_mode & S_IFMT
        let end: UInt64
        switch kind {
        case S_IFREG: end = UInt64(max(status.st_size, 0))
        case S_IFBLK: end = davit_file_device_size(descriptor)
        case S_IFDIR: throw DiskError(.unreadable, file: path, "is a directory", mend: "give the path of a file")
        default:
            throw DiskError(
                .unreadable, file: path, "is neither a regular file nor a block device", mend: "give one of those")
        }
        guard Self.lock(descriptor, exclusive: writable) else {
            guard errno == EAGAIN || errno == EACCES else { throw Self.failure(path, "lock") }
            let other = writable ? "somebody else uses it" : "somebody else writes to it"
            throw DiskError(
                .inUse, file: path, other, mend: "end the machine or program that has it, or work on a copy")
        }
        var direct: Int32 = -1
        if cache == .none {
            direct = davit_file_open_direct(descriptor, writable)
            guard direct >= 0 else {
                throw DiskError(
                    .unsupported, file: path, "its file system has no direct I/O (\(String(cString: strerror(errno))))",
                    mend: "use cache=writeback")
            }
        }
        self.path = path
        self.descriptor = descriptor
        self.direct = direct
        self.cache = cache
        isWritable = writable
        isDevice = kind == S_IFBLK
        knownEnd = Atomic(end)
        identity = FileIdentity(status)
        keepsOpen = true
    }

    deinit {
        if direct >= 0 { close(direct) }
        close(descriptor)
    }

    /// Waits a little for a process that has just been killed: the kernel gives its lock up when its last transfer has ended.
    private static func lock(_ descriptor: Int32, exclusive: Bool) -> Bool {
        for _ in 0..<lockAttempts {
            if davit_file_lock(descriptor, exclusive) == 0 { return true }
            guard errno == EAGAIN || errno == EACCES else { return false }
            usleep(20_000)
            errno = EAGAIN
        }
        return false
    }

    /// 20 ms apart.
    private static let lockAttempts = 40

    private static func failure(_ path: String, _ what: String) -> DiskError {
        DiskError(
            .unreadable, file: path, "cannot \(what) it (\(String(cString: strerror(errno))))",
            mend: "check the disk that it is on")
    }

    /// In bytes.
    var end: UInt64 { knownEnd.load(ordering: .relaxed) }

    /// The descriptor that takes a transfer between `offset` and those buffers.
    func descriptor(at offset: UInt64, _ buffers: BlockBuffers) -> Int32 {
        guard direct >= 0 else { return descriptor }
        let mask = UInt(Self.directAlignment - 1)
        var bits = UInt(truncatingIfNeeded: offset)
        for piece in buffers.pieces { bits |= UInt(bitPattern: piece.iov_base) | UInt(piece.iov_len) }
        return bits & mask == 0 ? direct : descriptor
    }

    /// The most pieces that one system call takes (IOV_MAX).
    static let maximumPieces = 1024

    /// Fills the buffers from `offset` on.
    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        try transfer(at: offset, buffers) { (descriptor, pieces, count, offset) in
            preadv(descriptor, pieces, count, offset)
        } atEnd: { (offset, rest) throws(BlockError) in
            guard offset >= self.end else { throw .truncated }
            rest.clear()
        }
    }

    /// Writes all of the buffers from `offset` on.
    func write(at offset: UInt64, from buffers: BlockBuffers) throws(BlockError) {
        try transfer(at: offset, buffers) { (descriptor, pieces, count, offset) in
            pwritev(descriptor, pieces, count, offset)
        } atEnd: { (_, _) throws(BlockError) in
            throw .host(code: EIO)
        }
        didWrite(upTo: offset + UInt64(buffers.count))
    }

    /// Somebody has written up to `end`, in bytes.
    func didWrite(upTo end: UInt64) { _ = knownEnd.max(end, ordering: .relaxed) }

    /// Goes on until all is done; `atEnd` gets the rest when the call transfers nothing.
    private func transfer(
        at offset: UInt64, _ buffers: BlockBuffers, _ call: (Int32, [iovec], Int32, off_t) -> Int,
        atEnd: (UInt64, BlockBuffers) throws(BlockError) -> Void
    ) throws(BlockError) {
        guard offset <= UInt64(Int64.max) - UInt64(buffers.count) else { throw .outOfRange }
        var done = 0
        while done < buffers.count {
            var rest = buffers.slice(done, buffers.count - done)
            if rest.pieces.count > Self.maximumPieces {
                rest = BlockBuffers(Array(rest.pieces.prefix(Self.maximumPieces)))
            }
            let place = offset + UInt64(done)
            let got = call(descriptor(at: place, rest), rest.pieces, Int32(rest.pieces.count), off_t(place))
            if got < 0 {
                if errno == EINTR { continue }
                throw Self.error(errno)
            }
            if got == 0 { return try atEnd(place, buffers.slice(done, buffers.count - done)) }
            done += got
        }
    }

    /// Fills the buffers if the host has all of those bytes in its page cache. Does not wait.
    func readCached(at offset: UInt64, into buffers: BlockBuffers) -> Bool {
        guard direct < 0, buffers.pieces.count <= Self.maximumPieces, offset <= UInt64(Int64.max) else { return false }
        return davit_file_read_cached(descriptor, buffers.pieces, Int32(buffers.pieces.count), Int64(offset))
            == buffers.count
    }

    static func error(_ code: Int32) -> BlockError {
        code == ENOSPC || code == EDQUOT || code == EFBIG ? .noSpace : .host(code: code)
    }

    /// Brings what has been written to stable storage.
    func sync() throws(BlockError) {
        if cache == .unsafe { return }
        guard !isBroken.load(ordering: .acquiring) else { throw .host(code: EIO) }
        guard fdatasync(descriptor) == 0 else { throw syncFailed(errno) }
    }

    /// Notes that a sync has failed: every later one fails, too.
    func syncFailed(_ code: Int32) -> BlockError {
        isBroken.store(true, ordering: .releasing)
        return Self.error(code)
    }

    /// Makes the file at least `end` bytes long; what is new reads as zeros.
    func extend(to end: UInt64) throws(BlockError) {
        guard end > self.end, !isDevice else { return }
        guard end <= UInt64(Int64.max) else { throw .noSpace }
        while ftruncate(descriptor, off_t(end)) != 0 {
            if errno != EINTR { throw Self.error(errno) }
        }
        didWrite(upTo: end)
    }

    /// Gives the space of those bytes back, if the file system can do that. They read as zeros then, or as before.
    func punchHole(at offset: UInt64, count: UInt64) -> Bool {
        guard let (offset, count) = signed(offset, count) else { return false }
        return davit_file_punch_hole(descriptor, offset, count) == 0
    }

    /// Makes those bytes zeros.
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool = false) throws(BlockError) {
        guard let range = signed(offset, count) else { throw .outOfRange }
        if mayUnmap && punchHole(at: offset, count: count) {
            return try extend(to: offset + count)
        }
        if davit_file_zero_range(descriptor, range.0, range.1) == 0 { return didWrite(upTo: offset + count) }
        guard errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL else { throw Self.error(errno) }
        var done: UInt64 = 0
        var failure: BlockError?
        withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: Self.directAlignment) { zeros in
            _ = zeros.initializeMemory(as: UInt8.self, repeating: 0)
            do throws(BlockError) {
                while done < count {
                    let size = Int(min(UInt64(zeros.count), count - done))
                    try write(
                        at: offset + done, from: BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: zeros[..<size])))
                    done += UInt64(size)
                }
            } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// How many bytes from `offset` on, at most `limit`, the file system has nothing for.
    func hole(at offset: UInt64, upTo limit: UInt64) -> UInt64 {
        guard let (start, _) = signed(offset, limit) else { return 0 }
        let data = davit_file_next_data(descriptor, start)
        guard data >= 0 else { return 0 }
        return min(UInt64(data) - offset, limit)
    }

    private func signed(_ offset: UInt64, _ count: UInt64) -> (Int64, Int64)? {
        guard offset <= UInt64(Int64.max), count <= UInt64(Int64.max) - offset else { return nil }
        return (Int64(offset), Int64(count))
    }
}

extension HostFile {
    /// The `count` bytes at `offset`.
    func bytes(at offset: UInt64, count: Int) throws(BlockError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: BlockError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(BlockError) { try read(at: offset, into: BlockBuffers(buffer)) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Writes `bytes` at `offset`.
    func write(_ bytes: [UInt8], at offset: UInt64) throws(BlockError) {
        var bytes = bytes
        var failure: BlockError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(BlockError) { try write(at: offset, from: BlockBuffers(buffer)) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// The `count` bytes of a header at `offset`, all of them inside the file; `part` is what messages call them.
    func header(at offset: UInt64, count: Int, part: String) throws(DiskError) -> [UInt8] {
        guard offset <= end, UInt64(count) <= end - offset else {
            throw DiskError(
                .truncated, file: path,
                "\(part) (\(count) bytes at offset \(offset)) lies past the file's end at \(end)",
                mend: "the file was cut short; fetch or copy it again")
        }
        do throws(BlockError) { return try bytes(at: offset, count: count) } catch {
            throw DiskError(
                .unreadable, file: path, "reading \(part) failed (\(error))", mend: "check the disk that it is on")
        }
    }

    /// Headers that contradict themselves: only another file helps.
    func malformed(_ problem: String) -> DiskError {
        DiskError(
            .malformed, file: path, problem,
            mend: "the image is damaged; 'qemu-img check -r all' may mend it, or use a copy")
    }
}
