import Glibc
import GuestMemory
import HostLinux

/// A kernel, initrd or module as it lies in a file, or in memory.
///
/// The file is read with `pread` and never mapped: one that shrinks while it is being read then gives an error, where a mapping would
/// give SIGBUS. It stays open, so that a reset can load it again.
public final class KernelFile: Sendable {
    /// The flag that named the file, such as `--kernel`.
    public let flag: String
    /// The path as the user gave it.
    public let path: String
    /// In bytes, when the file was opened.
    public let size: UInt64
    private let contents: Contents
    /// How much is copied at a time, in bytes: little enough for the host's second-level cache.
    private static let pieceSize = 128 << 10

    private enum Contents: Sendable {
        case descriptor(Int32)
        case bytes([UInt8])
    }

    /// Opens a regular file that is not empty. `flag` is what error messages name.
    public init(path: String, flag: String) throws(BootError) {
        let source = BootSource(flag: flag, file: path)
        // Without O_NONBLOCK a FIFO would hold us up until someone writes.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            let code = errno
            let mend =
                code == ENOENT ? "give the path of an existing file" : "give a file that you may read"
            throw source.error(.unreadable, "cannot open it (\(String(cString: strerror(code))))", mend: mend)
        }
        var status = stat()
        if fstat(descriptor, &status) != 0 {
            let code = errno
            close(descriptor)
            throw source.error(
                .unreadable, "cannot examine it (\(String(cString: strerror(code))))",
                mend: "give a file that you may read")
        }
        let kind = status.st_mode & S_IFMT
        if kind != S_IFREG {
            close(descriptor)
            let what = kind == S_IFDIR ? "is a directory" : "is not a regular file"
            throw source.error(.unreadable, what, mend: "give the path of a file")
        }
        if status.st_size <= 0 {
            close(descriptor)
            throw source.error(.unreadable, "is empty", mend: "fetch or build the file again")
        }
        self.flag = flag
        self.path = path
        self.size = UInt64(status.st_size)
        self.contents = .descriptor(descriptor)
    }

    /// A file's contents that are in memory already; `name` stands for the path in messages.
    public init(bytes: [UInt8], name: String, flag: String) {
        self.flag = flag
        self.path = name
        self.size = UInt64(bytes.count)
        self.contents = .bytes(bytes)
    }

    deinit {
        if case .descriptor(let descriptor) = contents { close(descriptor) }
    }

    var source: BootSource { BootSource(flag: flag, file: path) }

    /// The `count` bytes at `offset`; `part` is what messages call them.
    func read(at offset: UInt64, count: Int, part: String) throws(BootError) -> [UInt8] {
        try check(offset: offset, count: UInt64(count), part: part)
        var bytes = [UInt8](repeating: 0, count: count)
        var failure: BootError?
        bytes.withUnsafeMutableBytes { buffer in
            do throws(BootError) { try fill(buffer, from: offset, part: part) } catch { failure = error }
        }
        if let failure { throw failure }
        return bytes
    }

    /// The first `limit` bytes, or all if there are fewer.
    func head(_ limit: Int) throws(BootError) -> [UInt8] {
        try read(at: 0, count: Int(min(UInt64(limit), size)), part: "its beginning")
    }

    /// Copies `count` bytes at `offset` into guest RAM. The caller has claimed the place.
    func copy(
        at offset: UInt64, count: UInt64, into memory: GuestMemory, at address: UInt64, part: String
    ) throws(BootError) {
        try check(offset: offset, count: count, part: part)
        let address = GuestPhysicalAddress(address)
        guard count > 0 else { return }
        guard memory.pointer(at: address, count: count) != nil else {
            throw source.error(.doesNotFit, "\(part) at \(address) is outside RAM", mend: "give more with --memory")
        }
        var failure: BootError?
        withUnsafeTemporaryAllocation(byteCount: Self.pieceSize, alignment: 16) { buffer in
            do throws(BootError) {
                var done: UInt64 = 0
                while done < count {
                    let size = Int(min(UInt64(buffer.count), count - done))
                    let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<size])
                    try fill(piece, from: offset + done, part: part)
                    let place = GuestPhysicalAddress(address.rawValue + done)
                    try store(UnsafeRawBufferPointer(piece), in: memory, at: place)
                    done += UInt64(size)
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func store(
        _ bytes: UnsafeRawBufferPointer, in memory: GuestMemory, at address: GuestPhysicalAddress
    ) throws(BootError) {
        do throws(SystemError) {
            try memory.fill(bytes, at: address)
        } catch {
            throw BootSource(flag: "--memory", file: "").error(
                .doesNotFit, "the host has no memory left for the guest (\(error))",
                mend: "give the guest less, or free some")
        }
    }

    private func check(offset: UInt64, count: UInt64, part: String) throws(BootError) {
        guard offset <= size, count <= size - offset else {
            let wanted = "\(part) (\(count) bytes at offset \(offset))"
            throw source.truncated("\(wanted) would reach past the file's end at \(size)")
        }
    }

    /// Fills `buffer`; the range has been checked against `size`, and the file may have shrunk since.
    private func fill(_ buffer: UnsafeMutableRawBufferPointer, from offset: UInt64, part: String) throws(BootError) {
        switch contents {
        case .bytes(let bytes):
            bytes.withUnsafeBytes { all in
                let start = Int(offset)
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: all[start..<start + buffer.count]))
            }
        case .descriptor(let descriptor):
            var done = 0
            while done < buffer.count {
                // Safe: the bytes from `done` to `buffer.count` are the buffer's own.
                let got = pread(
                    descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset) + off_t(done))
                if got < 0 && errno == EINTR { continue }
                guard got >= 0 else {
                    let problem = "reading it failed (\(String(cString: strerror(errno))))"
                    throw source.error(.unreadable, problem, mend: "check the disk or give another file")
                }
                guard got > 0 else { throw source.truncated("became shorter while \(part) was being read") }
                done += got
            }
        }
    }
}
