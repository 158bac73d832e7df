import CDavit
import Glibc

/// What files and directories contain.
extension FUSEServer {
    /// Of one request, so that none takes for ever.
    private static let mostCopied = 64 << 20
    /// struct fuse_dirent up to its name: ino, off, namelen, type.
    private static let entryHeaderSize = 24

    func answerOnContents(
        _ request: FUSERequest, _ opcode: fuse_opcode, _ inode: Inode
    ) throws(FileError) -> FUSEReply? {
        switch opcode {
        case FUSE_OPEN: return try open(request, inode)
        case FUSE_CREATE: return try create(request, inode)
        case FUSE_TMPFILE: return try makeUnnamed(request, inode)
        case FUSE_READ: return try read(request)
        case FUSE_WRITE: return try write(request)
        case FUSE_RELEASE, FUSE_RELEASEDIR:
            files.remove(try request.arguments(fuse_release_in()).fh)
            return .empty
        case FUSE_FSYNC: return try sync(request, isDirectory: false)
        case FUSE_FSYNCDIR: return try sync(request, isDirectory: true)
        case FUSE_SYNCFS:
            try FileError.check(davit_share_syncfs(try inodes.root.open(O_RDONLY | O_DIRECTORY).number))
            return .empty
        case FUSE_LSEEK: return try seek(request)
        case FUSE_FALLOCATE: return try allocate(request)
        case FUSE_COPY_FILE_RANGE: return try copyRange(request)
        case FUSE_OPENDIR:
            _ = try inode.directory()
            return try openReply(OpenFile(try inode.open(O_RDONLY | O_DIRECTORY), inode), flags: 0)
        case FUSE_READDIR: return try list(request, inode, withAttributes: false)
        case FUSE_READDIRPLUS: return try list(request, inode, withAttributes: true)
        // FUSE_FLUSH is not served: nothing waits here to be written, and the guest then spares it.
        default: return nil
        }
    }

    // MARK: opening

    /// What of the guest's flags goes to the host. The rest is for its own kernel, or asks for what we decide.
    private func openFlags(_ flags: UInt32) throws(FileError) -> Int32 {
        let flags = Int32(bitPattern: flags)
        let access = flags & O_ACCMODE
        guard access != O_ACCMODE else { throw FileError(EINVAL) }
        if isReadOnly && (access != O_RDONLY || flags & O_TRUNC != 0) { throw FileError(EROFS) }
        return access | flags & (O_TRUNC | O_SYNC | O_DSYNC)
    }

    private func openReply(_ file: OpenFile, flags: UInt32) throws(FileError) -> FUSEReply {
        .value(fuse_open_out(fh: files.insert(file), open_flags: flags, padding: 0))
    }

    private func open(_ request: FUSERequest, _ inode: Inode) throws(FileError) -> FUSEReply {
        guard inode.kind == S_IFREG else { throw FileError(inode.kind == S_IFDIR ? EISDIR : ENXIO) }
        let arguments = try request.arguments(fuse_open_in())
        let flags = try openFlags(arguments.flags)
        let file = OpenFile(try inode.open(flags), inode)
        if flags & O_TRUNC != 0, arguments.open_flags & UInt32(FUSE_OPEN_KILL_SUIDGID) != 0 { try dropSetID(inode) }
        let isUnchanged = inode.isUnchanged(Inode.Version(try inode.status()))
        return try openReply(file, flags: isUnchanged ? UInt32(FOPEN_KEEP_CACHE) : 0)
    }

    /// Makes a file, or opens one that is there unless that is to be an error.
    private func create(_ request: FUSERequest, _ directory: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_create_in())
        let name = try request.name(at: MemoryLayout<fuse_create_in>.size)
        let flags = try openFlags(arguments.flags)
        let mode = permissions(arguments.mode, isDirectory: false)
        let parent = try directory.directory()
        do throws(FileError) {
            // What is there already might be anything: a pipe, a device, a link.
            let descriptor = try SharedDescriptor {
                openat(parent, name.bytes, flags & ~O_TRUNC | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode & 0o777)
            }
            return try createReply(request, descriptor, mode: mode)
        } catch {
            guard error.code == EEXIST, Int32(bitPattern: arguments.flags) & O_EXCL == 0 else { throw error }
        }
        let (inode, status) = try inodes.find(name, in: directory)
        do throws(FileError) {
            guard inode.kind == S_IFREG else { throw FileError(inode.kind == S_IFDIR ? EISDIR : ENXIO) }
            return createReply(OpenFile(try inode.open(flags), inode), status)
        } catch {
            inodes.forget(inode.id, count: 1)
            throw error
        }
    }

    private func createReply(
        _ request: FUSERequest, _ descriptor: SharedDescriptor, mode: mode_t
    ) throws(FileError) -> FUSEReply {
        var status = stat()
        try FileError.check(fstat(descriptor.number, &status))
        try settle(request, descriptor, status, mode: mode)
        // The very file, and not what has the name now.
        let held = try SharedDescriptor {
            Glibc.open(descriptor.path, Int32(bitPattern: DAVIT_O_PATH.rawValue) | O_CLOEXEC)
        }
        let (inode, settled) = try inodes.insert(held)
        return createReply(OpenFile(descriptor, inode), settled)
    }

    private func createReply(_ file: OpenFile, _ status: stat) -> FUSEReply {
        let opened = fuse_open_out(fh: files.insert(file), open_flags: 0, padding: 0)
        return .bytes(
            withUnsafeBytes(of: entry(file.inode, status)) { Array($0) } + withUnsafeBytes(of: opened) { Array($0) })
    }

    /// A file without a name (open(2), O_TMPFILE), which may get one later.
    private func makeUnnamed(_ request: FUSERequest, _ directory: Inode) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_create_in())
        let flags = try openFlags(arguments.flags) & ~O_TRUNC
        guard flags & O_ACCMODE != O_RDONLY else { throw FileError(EINVAL) }
        let mode = permissions(arguments.mode, isDirectory: false)
        let parent = try directory.directory()
        let descriptor = try SharedDescriptor {
            openat(parent, ".", Int32(bitPattern: DAVIT_O_TMPFILE.rawValue) | flags | O_CLOEXEC, mode & 0o777)
        }
        return try createReply(request, descriptor, mode: mode)
    }

    // MARK: bytes, straight between the file and the guest's memory

    private func read(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_read_in())
        let file = try files.find(arguments.fh)
        let pieces = request.message.writablePieces(
            from: FUSERequest.replyHeaderSize, count: min(Int(arguments.size), request.room))
        return .written(
            try FileError.check(
                preadv(file.descriptor.number, pieces, Int32(pieces.count), off_t(truncatingIfNeeded: arguments.offset))
            ))
    }

    private func write(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_write_in())
        let first = MemoryLayout<fuse_write_in>.size
        let size = Int(arguments.size)
        guard size <= request.count - first else { throw FileError(EINVAL) }
        let file = try files.find(arguments.fh)
        if arguments.write_flags & UInt32(FUSE_WRITE_KILL_SUIDGID) != 0 { try dropSetID(file.inode) }
        let pieces = request.message.readablePieces(from: FUSERequest.headerSize + first, count: size)
        // Pages that the guest writes back have their place, whoever opened the file.
        let isAppending =
            Int32(bitPattern: arguments.flags) & O_APPEND != 0 && arguments.write_flags & UInt32(FUSE_WRITE_CACHE) == 0
        let count =
            isAppending
            ? davit_share_append(file.descriptor.number, pieces, Int32(pieces.count))
            : pwritev(file.descriptor.number, pieces, Int32(pieces.count), off_t(truncatingIfNeeded: arguments.offset))
        try FileError.check(count)
        return .value(fuse_write_out(size: UInt32(truncatingIfNeeded: count), padding: 0))
    }

    private func sync(_ request: FUSERequest, isDirectory: Bool) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_fsync_in())
        let number = try files.find(arguments.fh, isDirectory: isDirectory).descriptor.number
        try FileError.check(
            arguments.fsync_flags & UInt32(FUSE_FSYNC_FDATASYNC) != 0 ? fdatasync(number) : fsync(number))
        return .empty
    }

    /// Where data or a hole begins; other places the guest's kernel knows.
    private func seek(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_lseek_in())
        // SEEK_DATA and SEEK_HOLE.
        guard [3, 4].contains(arguments.whence) else { throw FileError(EINVAL) }
        let place = lseek(
            try files.find(arguments.fh).descriptor.number, off_t(truncatingIfNeeded: arguments.offset),
            Int32(arguments.whence))
        return .value(fuse_lseek_out(offset: UInt64(bitPattern: Int64(try FileError.check(place)))))
    }

    private func allocate(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_fallocate_in())
        let file = try files.find(arguments.fh)
        try FileError.check(
            davit_share_fallocate(
                file.descriptor.number, Int32(bitPattern: arguments.mode), Int64(bitPattern: arguments.offset),
                Int64(bitPattern: arguments.length)))
        return .empty
    }

    private func copyRange(_ request: FUSERequest) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_copy_file_range_in())
        guard arguments.flags == 0 else { throw FileError(EINVAL) }
        let (from, to) = (try files.find(arguments.fh_in), try files.find(arguments.fh_out))
        let count = try FileError.check(
            davit_share_copy_range(
                from.descriptor.number, Int64(bitPattern: arguments.off_in), to.descriptor.number,
                Int64(bitPattern: arguments.off_out), Int(clamping: min(arguments.len, UInt64(Self.mostCopied)))))
        return .value(fuse_write_out(size: UInt32(truncatingIfNeeded: count), padding: 0))
    }

    // MARK: directories

    private func list(
        _ request: FUSERequest, _ inode: Inode, withAttributes: Bool
    ) throws(FileError) -> FUSEReply {
        let arguments = try request.arguments(fuse_read_in())
        let directory = try files.find(arguments.fh, isDirectory: true)
        let room = min(Int(arguments.size), request.room)
        var bytes: [UInt8] = []
        var failure: FileError?
        directory.listing.withLock { listing in
            do throws(FileError) {
                try listing.seek(to: arguments.offset, in: directory.descriptor.number)
                while let next = try listing.peek(in: directory.descriptor.number) {
                    let extra = withAttributes ? MemoryLayout<fuse_entry_out>.size : 0
                    let size = (extra + Self.entryHeaderSize + next.name.count + 7) & ~7
                    guard bytes.count + size <= room else { break }
                    if withAttributes { append(&bytes, found(next, in: directory.inode)) }
                    append(&bytes, next, in: directory.inode)
                    listing.advance(past: next)
                }
            } catch {
                failure = error
            }
        }
        // What was found is told first: the guest counts it as looked up.
        if let failure, bytes.isEmpty { throw failure }
        return .bytes(bytes)
    }

    /// The file that an entry stands for; without a number if there is none any more, or it is the directory or its parent.
    private func found(_ next: DirectoryListing.Entry, in directory: Inode) -> fuse_entry_out {
        guard !next.isDots, let name = try? FileName(next.name), let found = try? inodes.find(name, in: directory)
        else { return fuse_entry_out() }
        return entry(found.inode, found.status)
    }

    private func append(_ bytes: inout [UInt8], _ entry: fuse_entry_out) {
        withUnsafeBytes(of: entry) { bytes.append(contentsOf: $0) }
    }

    /// struct fuse_dirent, padded to 8 bytes.
    private func append(_ bytes: inout [UInt8], _ next: DirectoryListing.Entry, in directory: Inode) {
        // Nothing is said of what is above the tree.
        let isTop = directory === inodes.root && next.isDots
        let number = isTop ? directory.key.inode : next.number
        withUnsafeBytes(of: number) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: next.offset) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt32(next.name.count)) { bytes.append(contentsOf: $0) }
        withUnsafeBytes(of: UInt32(next.type)) { bytes.append(contentsOf: $0) }
        bytes.append(contentsOf: next.name)
        bytes.append(contentsOf: repeatElement(0, count: (8 - next.name.count % 8) % 8))
    }
}
