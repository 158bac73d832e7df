import CDavit
import Glibc

/// Attributes, extended ones too, and what is told of the file system.
extension FUSEServer {
    func answerOnAttributes(
        _ request: FUSERequest, _ opcode: fuse_opcode, _ inode: Inode
    ) throws(FileError) -> FUSEReply? {
        switch opcode {
        case FUSE_GETATTR: attributesReply(try inode.status())
        case FUSE_SETATTR: try setAttributes(request, inode)
        case FUSE_STATFS: try fileSystemStatus(inode)
        case FUSE_ACCESS: try checkAccess(request, inode)
        case FUSE_GETXATTR: try extendedAttribute(request, inode)
        case FUSE_LISTXATTR: try extendedAttributes(request, inode)
        case FUSE_SETXATTR: try setExtendedAttribute(request, inode)
        case FUSE_REMOVEXATTR: try removeExtendedAttribute(request, inode)
        default: nil
        }
    }

    func attributes(_ status: stat) -> fuse_attr {
        fuse_attr(
            ino: UInt64(status.st_ino), size: UInt64(bitPattern: Int64(status.st_size)),
            blocks: UInt64(bitPattern: Int64(status.st_blocks)),
            atime: UInt64(bitPattern: Int64(status.st_atim.tv_sec)),
            mtime: UInt64(bitPattern: Int64(status.st_mtim.tv_sec)),
            ctime: UInt64(bitPattern: Int64(status.st_ctim.tv_sec)),
            atimensec: UInt32(truncatingIfNeeded: status.st_atim.tv_nsec),
            mtimensec: UInt32(truncatingIfNeeded: status.st_mtim.tv_nsec),
            ctimensec: UInt32(truncatingIfNeeded: status.st_ctim.tv_nsec), mode: status.st_mode,
            nlink: UInt32(truncatingIfNeeded: status.st_nlink), uid: owners.guestUser(status.st_uid),
            gid: owners.guestGroup(status.st_gid),
            // The low words of glibc's and Linux's ways to write a device's number are the same.
            rdev: UInt32(truncatingIfNeeded: status.st_rdev), blksize: UInt32(truncatingIfNeeded: status.st_blksize),
            flags: 0)
    }

    private func attributesReply(_ status: stat) -> FUSEReply {
        var reply = fuse_attr_out()
        reply.attr_valid = Self.validity
        reply.attr = attributes(status)
        return .value(reply)
    }

    /// The mode that a file gets if the guest asks for `mode`: its type is not the guest's to say.
    func permissions(_ mode: UInt32, isDirectory: Bool) -> mode_t {
        mode & (keepsSetID || isDirectory ? 0o7777 : 0o1777)
    }

    private func setAttributes(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_setattr_in())
        func has(_ bit: Int32) -> Bool { arguments.valid & UInt32(bit) != 0 }
        let path = inode.descriptor.path
        if has(FATTR_UID) || has(FATTR_GID) {
            let user = try owners.hostUser(has(FATTR_UID) ? arguments.uid : nil)
            let group = try owners.hostGroup(has(FATTR_GID) ? arguments.gid : nil)
            try FileError.check(
                fchownat(inode.descriptor.number, "", user, group, Int32(DAVIT_AT_EMPTY_PATH.rawValue)))
        }
        if has(FATTR_SIZE) {
            guard inode.kind == S_IFREG else { throw FileError(inode.kind == S_IFDIR ? EISDIR : EINVAL) }
            let size = off_t(truncatingIfNeeded: arguments.size)
            if has(FATTR_FH) {
                // A file that was open for writing may be cut, whatever its mode has become.
                try FileError.check(ftruncate(try files.find(arguments.fh).descriptor.number, size))
            } else {
                try FileError.check(truncate(path, size))
            }
        }
        if has(FATTR_MODE) {
            guard inode.kind != S_IFLNK else { throw FileError(EOPNOTSUPP) }
            try FileError.check(chmod(path, permissions(arguments.mode, isDirectory: inode.kind == S_IFDIR)))
        }
        if has(FATTR_KILL_SUIDGID) && !has(FATTR_MODE) { try dropSetID(inode) }
        if has(FATTR_ATIME) || has(FATTR_MTIME) {
            try setTimes(
                inode,
                [
                    try time(
                        has(FATTR_ATIME), isNow: has(FATTR_ATIME_NOW), arguments.atime, arguments.atimensec),
                    try time(
                        has(FATTR_MTIME), isNow: has(FATTR_MTIME_NOW), arguments.mtime, arguments.mtimensec),
                ])
        }
        return attributesReply(try inode.status())
    }

    private func time(
        _ isGiven: Bool, isNow: Bool, _ seconds: UInt64, _ nanoseconds: UInt32
    ) throws(FileError) -> timespec {
        // UTIME_OMIT and UTIME_NOW of utimensat(2).
        if !isGiven { return timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2) }
        if isNow { return timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1) }
        guard nanoseconds < 1_000_000_000 else { throw FileError(EINVAL) }
        return timespec(tv_sec: Int(bitPattern: UInt(seconds)), tv_nsec: Int(nanoseconds))
    }

    private func setTimes(_ inode: Inode, _ times: [timespec]) throws(FileError) {
        try FileError.check(utimensat(AT_FDCWD, inode.descriptor.path, times, 0))
    }

    /// A file that was written to loses the rights of its owner, as the guest's kernel leaves it to us.
    func dropSetID(_ inode: Inode) throws(FileError) {
        let mode = try inode.status().st_mode
        guard inode.kind == S_IFREG, mode & (S_ISUID | S_ISGID) != 0 else { return }
        // Set-group-ID without execution by the group marks mandatory locks.
        let gone = mode & S_IXGRP != 0 ? S_ISUID | S_ISGID : S_ISUID
        try FileError.check(chmod(inode.descriptor.path, mode & 0o7777 & ~gone))
    }

    private func fileSystemStatus(_ inode: Inode) throws(FileError) -> FUSEReply {
        var status = statvfs()
        try FileError.check(fstatvfs(inode.descriptor.number, &status))
        var reply = fuse_statfs_out()
        reply.st.blocks = UInt64(status.f_blocks)
        reply.st.bfree = UInt64(status.f_bfree)
        reply.st.bavail = UInt64(status.f_bavail)
        reply.st.files = UInt64(status.f_files)
        reply.st.ffree = UInt64(status.f_ffree)
        reply.st.bsize = UInt32(truncatingIfNeeded: status.f_bsize)
        reply.st.namelen = UInt32(truncatingIfNeeded: status.f_namemax)
        reply.st.frsize = UInt32(truncatingIfNeeded: status.f_frsize)
        return .value(reply)
    }

    /// What this process may do; modes are the guest's kernel's to judge by.
    private func checkAccess(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let mask = Int32(bitPattern: try request.arguments(fuse_access_in()).mask)
        guard mask & ~(R_OK | W_OK | X_OK) == 0 else { throw FileError(EINVAL) }
        if isReadOnly && mask & W_OK != 0 { throw FileError(EROFS) }
        try FileError.check(faccessat(AT_FDCWD, inode.descriptor.path, mask, 0))
        return .empty
    }

    // MARK: extended attributes

    /// Those that mean nothing to the host: `user.`, and capabilities if the guest may give them.
    private func mayHave(_ name: some Collection<UInt8>) -> Bool {
        name.starts(with: "user.".utf8) || (keepsSetID && name.elementsEqual("security.capability".utf8))
    }

    private func attributeName(_ request: FUSERequest, at offset: Int) throws(FileError) -> [CChar] {
        let name = try request.strings(1, at: offset)[0]
        guard mayHave(name) else { throw FileError(EOPNOTSUPP) }
        return name.map { CChar(bitPattern: $0) } + [0]
    }

    private func extendedAttribute(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_getxattr_in())
        let name = try attributeName(request, at: MemoryLayout<fuse_getxattr_in>.size)
        let path = inode.descriptor.path
        guard arguments.size > 0 else {
            return sizeReply(try FileError.check(getxattr(path, name, nil, 0)))
        }
        var value = [UInt8](repeating: 0, count: min(Int(arguments.size), request.room, Int(XATTR_SIZE_MAX)))
        let count = try FileError.check(getxattr(path, name, &value, value.count))
        // A buffer of no bytes only asks how many there are.
        guard count <= value.count else { throw FileError(ERANGE) }
        return .bytes(Array(value[..<count]))
    }

    private func sizeReply(_ size: Int) -> FUSEReply {
        .value(fuse_getxattr_out(size: UInt32(truncatingIfNeeded: size), padding: 0))
    }

    private func extendedAttributes(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_getxattr_in())
        var list = [CChar](repeating: 0, count: Int(XATTR_LIST_MAX))
        let count = try FileError.check(listxattr(inode.descriptor.path, &list, list.count))
        let names = list[..<count].map { UInt8(bitPattern: $0) }.split(separator: 0).filter { mayHave($0) }
        let bytes = names.reduce(into: [UInt8]()) { $0 += $1 + [0] }
        guard arguments.size > 0 else { return sizeReply(bytes.count) }
        guard bytes.count <= min(Int(arguments.size), request.room) else { throw FileError(ERANGE) }
        return .bytes(bytes)
    }

    private func setExtendedAttribute(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        // Without the flags that FUSE_SETXATTR_EXT adds, and that was not agreed on.
        let first = 8
        let size = Int(try request.arguments(UInt32(0)))
        let flags = Int32(bitPattern: try request.arguments(UInt32(0), at: 4))
        let name = try attributeName(request, at: first)
        let value = first + name.count
        guard size <= Int(XATTR_SIZE_MAX) else { throw FileError(E2BIG) }
        guard size <= request.body.count - value else { throw FileError(EINVAL) }
        let path = inode.descriptor.path
        let result = request.body.withUnsafeBytes { bytes in
            setxattr(
                path, name, bytes.baseAddress.map { $0 + value }, size, flags & Int32(XATTR_CREATE | XATTR_REPLACE))
        }
        try FileError.check(result)
        return .empty
    }

    private func removeExtendedAttribute(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        try FileError.check(removexattr(inode.descriptor.path, try attributeName(request, at: 0)))
        return .empty
    }
}
