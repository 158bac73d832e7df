import CDavit
import Glibc
import HostLinux
import Synchronization

/// A file of the shared tree that the guest knows. It is held by a descriptor that gives no access to its contents (O_PATH): so it stays
/// itself, whoever renames or removes it, and its number is given to no other file.
final class Inode: Sendable {
    /// What the guest may have of the contents in memory.
    struct Version: Equatable, Sendable {
        let size: Int
        let seconds: Int
        let nanoseconds: Int

        init(_ status: stat) {
            size = status.st_size
            seconds = status.st_mtim.tv_sec
            nanoseconds = status.st_mtim.tv_nsec
        }
    }

    /// By which the guest calls it; never used again.
    let id: UInt64
    let key: FileIdentity
    let descriptor: SharedDescriptor
    /// `S_IFREG` and so on, which never changes.
    let kind: mode_t
    /// Guards what the contents were when the guest opened them last.
    private let lastOpened = Mutex<Version?>(nil)

    init(id: UInt64, _ descriptor: SharedDescriptor, _ status: stat) {
        self.id = id
        key = FileIdentity(status)
        self.descriptor = descriptor
        kind = status.st_mode & S_IFMT
    }

    func status() throws(FileError) -> stat {
        var status = stat()
        try FileError.check(fstat(descriptor.number, &status))
        return status
    }

    /// The directory's descriptor, to look up names from.
    func directory() throws(FileError) -> Int32 {
        guard kind == S_IFDIR else { throw FileError(ENOTDIR) }
        return descriptor.number
    }

    /// Opens the contents of a regular file or a directory; nothing else is ever opened: neither devices nor pipes nor sockets.
    func open(_ flags: Int32) throws(FileError) -> SharedDescriptor {
        guard kind == S_IFREG || kind == S_IFDIR else { throw FileError(kind == S_IFLNK ? ELOOP : ENXIO) }
        let path = descriptor.path
        return try SharedDescriptor { Glibc.open(path, flags | O_CLOEXEC | O_NOCTTY) }
    }

    /// True if the contents are as they were at the last open: what the guest has of them in memory is good.
    func isUnchanged(_ version: Version) -> Bool {
        lastOpened.withLock { last in
            defer { last = version }
            return last == version
        }
    }
}

/// The files that the guest knows. It says when it forgets one.
final class InodeTable: Sendable {
    private struct Entry {
        let inode: Inode
        /// How often the guest was told of it, less how often it forgot.
        var lookups: UInt64
    }

    private struct State {
        var entries: [UInt64: Entry] = [:]
        var ids: [FileIdentity: UInt64] = [:]
        var nextID = UInt64(FUSE_ROOT_ID) + 1
    }

    let root: Inode
    /// Guards the table. Nothing is opened or closed under it.
    private let state = Mutex(State())

    init(root: SharedDescriptor) throws(FileError) {
        var status = stat()
        try FileError.check(fstat(root.number, &status))
        self.root = Inode(id: UInt64(FUSE_ROOT_ID), root, status)
    }

    var count: Int { state.withLock { $0.entries.count } }

    subscript(_ id: UInt64) -> Inode {
        get throws(FileError) {
            if id == root.id { return root }
            guard let inode = state.withLock({ $0.entries[id]?.inode }) else { throw FileError(ESTALE) }
            return inode
        }
    }

    /// What is called `name` in a directory; it counts as told of once more.
    func find(_ name: FileName, in directory: Inode) throws(FileError) -> (inode: Inode, status: stat) {
        let parent = try directory.directory()
        var status = stat()
        try FileError.check(fstatat(parent, name.bytes, &status, AT_SYMLINK_NOFOLLOW))
        if let known = recall(FileIdentity(status)) { return (known, status) }
        let descriptor = try SharedDescriptor {
            openat(parent, name.bytes, Int32(bitPattern: DAVIT_O_PATH.rawValue) | O_NOFOLLOW | O_CLOEXEC)
        }
        return try insert(descriptor)
    }

    /// A file by a descriptor of any kind.
    func insert(_ descriptor: SharedDescriptor) throws(FileError) -> (inode: Inode, status: stat) {
        var status = stat()
        try FileError.check(fstat(descriptor.number, &status))
        let key = FileIdentity(status)
        // Another thread may have been faster; then this descriptor is closed.
        let inode = state.withLock { state -> Inode in
            if key == root.key { return root }
            if let id = state.ids[key], let inode = state.entries[id]?.inode {
                state.entries[id]?.lookups &+= 1
                return inode
            }
            let inode = Inode(id: state.nextID, descriptor, status)
            state.nextID += 1
            state.entries[inode.id] = Entry(inode: inode, lookups: 1)
            state.ids[key] = inode.id
            return inode
        }
        return (inode, status)
    }

    private func recall(_ key: FileIdentity) -> Inode? {
        if key == root.key { return root }
        return state.withLock { state in
            guard let id = state.ids[key], let inode = state.entries[id]?.inode else { return nil }
            state.entries[id]?.lookups &+= 1
            return inode
        }
    }

    /// The guest was told of a file `count` times, and remembers no more.
    func forget(_ id: UInt64, count: UInt64) {
        // Closed when the lock is free.
        let gone = state.withLock { state -> Inode? in
            guard let entry = state.entries[id] else { return nil }
            guard entry.lookups <= count else {
                state.entries[id]?.lookups = entry.lookups - count
                return nil
            }
            state.entries[id] = nil
            state.ids[entry.inode.key] = nil
            return entry.inode
        }
        withExtendedLifetime(gone) {}
    }

    func forgetAll() {
        let gone = state.withLock { state in
            defer { (state.entries, state.ids) = ([:], [:]) }
            return state.entries
        }
        withExtendedLifetime(gone) {}
    }
}
