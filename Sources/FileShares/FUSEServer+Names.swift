import CDavit
import Glibc

/// Names: looking them up, making, moving and removing them.
extension FUSEServer {
    func answerOnNames(
        _ request: FUSERequest, _ opcode: fuse_opcode, _ inode: Inode
    ) throws(FileError) -> FUSEReply? {
        switch opcode {
        case FUSE_LOOKUP: try lookUp(request, inode)
        case FUSE_READLINK: try readLink(request, inode)
        case FUSE_MKDIR: try makeDirectory(request, inode)
        case FUSE_MKNOD: try makeNode(request, inode)
        case FUSE_SYMLINK: try makeSymbolicLink(request, inode)
        case FUSE_LINK: try makeLink(request, inode)
        case FUSE_UNLINK: try remove(request, inode, flags: 0)
        case FUSE_RMDIR: try remove(request, inode, flags: AT_REMOVEDIR)
        case FUSE_RENAME:
            try rename(
                request, inode, to: try request.arguments(fuse_rename_in()).newdir, flags: 0,
                at: MemoryLayout<fuse_rename_in>.size)
        case FUSE_RENAME2: try rename2(request, inode)
        default: nil
        }
    }

    func entry(_ inode: Inode, _ status: stat) -> fuse_entry_out {
        var entry = fuse_entry_out()
        entry.nodeid = inode.id
        entry.entry_valid = Self.validity
        entry.attr_valid = Self.validity
        entry.attr = attributes(status)
        return entry
    }

    private func lookUp(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        do throws(FileError) {
            let (found, status) = try inodes.find(try request.name(), in: inode)
            return .value(entry(found, status))
        } catch {
            guard error.code == ENOENT else { throw error }
            // The guest may remember that there is none (fuse_entry_out.nodeid 0).
            var missing = fuse_entry_out()
            missing.entry_valid = Self.validity
            return .value(missing)
        }
    }

    private func readLink(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        guard inode.kind == S_IFLNK else { throw FileError(EINVAL) }
        var target = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = try FileError.check(readlinkat(inode.descriptor.number, "", &target, target.count))
        return .bytes(target[..<min(count, request.room)].map { UInt8(bitPattern: $0) })
    }

    // MARK: new files

    /// Gives a new file to who made it, as far as the host lets us, with the mode that was asked for.
    func settle(
        _ request: FUSERequest, _ descriptor: SharedDescriptor, _ made: stat, mode: mode_t
    ) throws(FileError) {
        let isLink = made.st_mode & S_IFMT == S_IFLNK
        // Of a directory that hands its group on, the group is right already.
        let header = request.header
        var wanted = mode & 0o7777
        if owners.areIdentical, header.uid != 0 || header.gid != 0 {
            let group = made.st_gid == getegid() ? header.gid : gid_t.max
            try FileError.check(
                fchownat(descriptor.number, "", header.uid, group, Int32(DAVIT_AT_EMPTY_PATH.rawValue)))
        }
        if made.st_mode & S_IFMT == S_IFDIR { wanted |= made.st_mode & S_ISGID }
        guard !isLink, wanted & umask != 0 || wanted & 0o7000 != 0 else { return }
        try FileError.check(chmod(descriptor.path, wanted))
    }

    /// The file that `make` has just made under that name.
    private func made(
        _ request: FUSERequest, _ directory: Inode, _ name: FileName, kind: mode_t, mode: mode_t
    ) throws(FileError) -> FUSEReply {
        let parent = try directory.directory()
        let descriptor = try SharedDescriptor {
            openat(parent, name.bytes, Int32(bitPattern: DAVIT_O_PATH.rawValue) | O_NOFOLLOW | O_CLOEXEC)
        }
        var status = stat()
        try FileError.check(fstat(descriptor.number, &status))
        // Somebody else may have put something else there since.
        if status.st_mode & S_IFMT == kind { try settle(request, descriptor, status, mode: mode) }
        let (inode, settled) = try inodes.insert(descriptor)
        return .value(entry(inode, settled))
    }

    private func makeDirectory(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let mode = permissions(try request.arguments(fuse_mkdir_in()).mode, isDirectory: true)
        let name = try request.name(at: MemoryLayout<fuse_mkdir_in>.size)
        try FileError.check(mkdirat(try inode.directory(), name.bytes, mode))
        return try made(request, inode, name, kind: S_IFDIR, mode: mode)
    }

    /// Files, pipes and sockets, which are the guest's to use. Devices are refused: on the host they would be the host's.
    private func makeNode(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_mknod_in())
        let name = try request.name(at: MemoryLayout<fuse_mknod_in>.size)
        let kind = arguments.mode & S_IFMT
        guard [S_IFREG, S_IFIFO, S_IFSOCK].contains(kind) else { throw FileError(EPERM) }
        let mode = permissions(arguments.mode, isDirectory: false)
        try FileError.check(mknodat(try inode.directory(), name.bytes, kind | mode & 0o777, 0))
        return try made(request, inode, name, kind: kind, mode: mode)
    }

    /// It may point anywhere: nobody follows it on the host for the guest.
    private func makeSymbolicLink(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let strings = try request.strings(2)
        let name = try FileName(strings[0])
        let target = strings[1].map { CChar(bitPattern: $0) } + [0]
        guard target.count > 1 else { throw FileError(ENOENT) }
        try FileError.check(symlinkat(target, try inode.directory(), name.bytes))
        return try made(request, inode, name, kind: S_IFLNK, mode: 0)
    }

    private func makeLink(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let target = try inodes[try request.arguments(fuse_link_in()).oldnodeid]
        let name = try request.name(at: MemoryLayout<fuse_link_in>.size)
        guard target.kind != S_IFDIR else { throw FileError(EPERM) }
        try FileError.check(
            linkat(AT_FDCWD, target.descriptor.path, try inode.directory(), name.bytes, AT_SYMLINK_FOLLOW))
        let (found, status) = try inodes.find(name, in: inode)
        return .value(entry(found, status))
    }

    private func remove(_ request: FUSERequest, _ inode: Inode, flags: Int32) throws(FileError) -> FUSEReply {
        try FileError.check(unlinkat(try inode.directory(), try request.name().bytes, flags))
        return .empty
    }

    private func rename2(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_rename2_in())
        // RENAME_NOREPLACE and RENAME_EXCHANGE. A whiteout would be a device.
        guard arguments.flags & ~3 == 0 else { throw FileError(EINVAL) }
        return try rename(
            request, inode, to: arguments.newdir, flags: arguments.flags, at: MemoryLayout<fuse_rename2_in>.size)
    }

    private func rename(
        _ request: FUSERequest, _ inode: Inode, to newDirectory: UInt64, flags: UInt32, at offset: Int
    ) throws(FileError) -> FUSEReply {
        let strings = try request.strings(2, at: offset)
        let (old, new) = (try FileName(strings[0]), try FileName(strings[1]))
        let target = try inodes[newDirectory]
        try FileError.check(
            davit_share_rename(try inode.directory(), old.bytes, try target.directory(), new.bytes, flags))
        return .empty
    }
}
