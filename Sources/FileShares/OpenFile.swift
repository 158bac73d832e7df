import CDavit
import Glibc
import Synchronization

/// A file or directory that the guest has open.
final class OpenFile: Sendable {
    let descriptor: SharedDescriptor
    let inode: Inode
    /// Guards the place in a directory.
    let listing = Mutex(DirectoryListing())

    init(_ descriptor: SharedDescriptor, _ inode: Inode) {
        self.descriptor = descriptor
        self.inode = inode
    }
}

/// What the guest has open, by the handles it was given.
final class OpenFileTable: Sendable {
    private struct State {
        var files: [UInt64: OpenFile] = [:]
        /// Never used again.
        var nextHandle: UInt64 = 1
    }

    /// Guards the table. Nothing is opened or closed under it.
    private let state = Mutex(State())

    var count: Int { state.withLock { $0.files.count } }

    func insert(_ file: OpenFile) -> UInt64 {
        state.withLock { state in
            defer { state.nextHandle += 1 }
            state.files[state.nextHandle] = file
            return state.nextHandle
        }
    }

    /// A regular file's handle, or a directory's.
    func find(_ handle: UInt64, isDirectory: Bool = false) throws(FileError) -> OpenFile {
        guard let file = state.withLock({ $0.files[handle] }), (file.inode.kind == S_IFDIR) == isDirectory else {
            throw FileError(EBADF)
        }
        return file
    }

    func remove(_ handle: UInt64) {
        // Closed when the lock is free.
        let gone = state.withLock { $0.files.removeValue(forKey: handle) }
        withExtendedLifetime(gone) {}
    }

    func removeAll() {
        let gone = state.withLock { state in
            defer { state.files = [:] }
            return state.files
        }
        withExtendedLifetime(gone) {}
    }
}

/// Where in a directory a guest is, with entries that it was not given yet.
struct DirectoryListing: Sendable {
    /// Enough for many entries, and for the longest by far.
    private static let bufferSize = 32 << 10
    /// struct linux_dirent64 up to its name: d_ino, d_off, d_reclen, d_type.
    private static let headerSize = 19

    struct Entry {
        let number: UInt64
        /// Of the next entry.
        let offset: UInt64
        /// DT_REG and so on.
        let type: UInt8
        let name: ArraySlice<UInt8>

        var isDots: Bool { name.elementsEqual(".".utf8) || name.elementsEqual("..".utf8) }
    }

    private var buffer: [UInt8] = []
    private var place = 0
    /// Where the next entry of the buffer stands in the directory; nil if that is not known.
    private var offset: UInt64?

    /// Goes to where the guest says it was. It may say anything: a file system answers to any number.
    mutating func seek(to wanted: UInt64, in descriptor: Int32) throws(FileError) {
        guard offset != wanted else { return }
        (buffer, place, offset) = ([], 0, nil)
        try FileError.check(lseek(descriptor, off_t(truncatingIfNeeded: wanted), SEEK_SET))
        offset = wanted
    }

    /// The next entry, which stays the next; nil at the end.
    mutating func peek(in descriptor: Int32) throws(FileError) -> Entry? {
        if place >= buffer.count {
            var fresh = [UInt8](repeating: 0, count: Self.bufferSize)
            let count = try FileError.check(davit_share_getdents(descriptor, &fresh, fresh.count))
            guard count > 0 else { return nil }
            (buffer, place) = (Array(fresh[..<count]), 0)
        }
        return buffer.withUnsafeBytes { bytes -> Entry? in
            // The kernel wrote it: whole entries, with their names' zeros inside.
            let length = Int(bytes.loadUnaligned(fromByteOffset: place + 16, as: UInt16.self))
            let name = buffer[(place + Self.headerSize)..<(place + length)]
            return Entry(
                number: bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self),
                offset: bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self),
                type: bytes[place + 18], name: name.prefix { $0 != 0 })
        }
    }

    /// Goes past the entry that `peek` has shown.
    mutating func advance(past entry: Entry) {
        place += Int(buffer[place + 16]) | Int(buffer[place + 17]) << 8
        offset = entry.offset
    }
}
