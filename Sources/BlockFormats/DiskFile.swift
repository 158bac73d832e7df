import Glibc
import MachineModel

/// What can be done to a disk's file while no machine uses it.
public enum DiskFile {
    /// What a file says of the disk in it.
    public struct Information: Sendable {
        public let format: DiskFormat
        /// Of the disk, in bytes.
        public let size: UInt64
        /// What the file takes on the host, in bytes.
        public let allocated: UInt64
        /// What else there is to know, by name.
        public let details: [(name: String, value: String)]
        public let snapshots: [Snapshot]
    }

    public struct Snapshot: Sendable {
        public let id: String
        public let name: String
        /// When it was taken, seconds since 1970.
        public let seconds: UInt32
        /// Of the disk then, in bytes; nil if the file does not say.
        public let size: UInt64?
    }

    /// Makes an empty disk of `size` bytes. The file must not exist.
    public static func create(
        _ path: String, format: DiskFormat, size: UInt64, _ options: Qcow2Options = Qcow2Options()
    ) throws(DiskError) {
        switch format {
        case .qcow2: try Qcow2Image.create(path, size: size, options)
        case .raw:
            guard size > 0, size % RawImage.sectorSize == 0, size <= UInt64(Int64.max) else {
                throw DiskError(
                    .badRequest, file: path, "a disk of \(size) bytes cannot be", mend: "give a multiple of 512")
            }
            let file = try HostFile(path: path, writable: true, creation: .new)
            do throws(BlockError) { try file.extend(to: size) } catch {
                unlink(path)
                throw DiskError(
                    .unreadable, file: path, "cannot be made so large (\(error))", mend: "give another size")
            }
        case .vmdk, .vhdx: throw readOnly(path, format)
        }
    }

    private static func readOnly(_ path: String, _ format: DiskFormat) -> DiskError {
        DiskError(.unsupported, file: path, "Davit only reads \(format.rawValue)", mend: "use qcow2 or raw")
    }

    /// Reads what the file says of itself; files that it names are not opened but for a VMDK's extents.
    public static func information(_ path: String, format stated: DiskFormat?) throws(DiskError) -> Information {
        let file = try HostFile(path: path, writable: false)
        let format = if let stated { stated } else { try ImageOpener.find(file, forWriting: false) }
        var status = stat()
        fstat(file.descriptor, &status)
        let allocated = UInt64(status.st_blocks) * 512
        guard format == .qcow2 else {
            let image: any DiskImage =
                switch format {
                case .vmdk: try VMDK.open(file)
                case .vhdx: try VHDXImage(file)
                default: try RawImage(file)
                }
            return Information(format: format, size: image.size, allocated: allocated, details: [], snapshots: [])
        }
        let header = try Qcow2Header.parse(file)
        var details = [
            ("version", "\(header.version)"), ("cluster size", "\(header.clusterSize)"),
            ("refcount bits", "\(1 << header.refcountOrder)"), ("compression", header.isZstd ? "zstd" : "zlib"),
        ]
        if header.hasExtendedL2 { details.append(("extended L2", "yes")) }
        if header.compatible & Qcow2Header.lazyRefcounts != 0 { details.append(("lazy refcounts", "yes")) }
        if header.incompatible & Qcow2Header.Incompatible.dirty != 0 { details.append(("not closed properly", "yes")) }
        if header.incompatible & Qcow2Header.Incompatible.corrupt != 0 { details.append(("marked as corrupt", "yes")) }
        if let backing = header.backingFile {
            details.append(("backing file", backing))
            details.append(("backing format", header.backingFormat ?? "not stated"))
        }
        let snapshots = try Qcow2Snapshot.all(file, header).map {
            Snapshot(id: $0.id, name: $0.name, seconds: $0.seconds, size: $0.diskSize)
        }
        return Information(
            format: format, size: header.size, allocated: allocated, details: details, snapshots: snapshots)
    }

    /// Looks through a qcow2 image; with `repairs` refcounts that are wrong are made right, as long as no data are in doubt.
    public static func check(_ path: String, repairs: Bool) throws(DiskError) -> Qcow2Check {
        let file = try HostFile(path: path, writable: repairs)
        let header = try Qcow2Header.parse(file)
        let check = try Qcow2Check.check(file, header)
        guard repairs, check.corruptions > 0 || check.leaks > 0 else { return check }
        let mended: Qcow2Header
        do throws(BlockError) {
            mended = try Qcow2Check.rebuildRefcounts(file, header)
            try Qcow2Image.markDirty(false, file, mended)
        } catch {
            throw DiskError(
                .malformed, file: path, "cannot be mended (\(error))", mend: "try 'qemu-img check -r all' on a copy")
        }
        return try Qcow2Check.check(file, mended)
    }

    /// What an image means by a file that it names: a relative name is meant from the image's own directory.
    public static func resolve(_ name: String, besides path: String) -> String {
        if name.hasPrefix("/") { return name }
        guard let slash = path.lastIndex(of: "/") else { return name }
        return String(path[...slash]) + name
    }

    /// Makes a disk larger. What is new reads as zeros.
    public static func resize(_ path: String, format stated: DiskFormat?, to size: UInt64) throws(DiskError) {
        let format: DiskFormat
        if let stated {
            format = stated
        } else {
            format = try ImageOpener.find(HostFile(path: path, writable: false), forWriting: true)
        }
        guard format.isWritable else { throw readOnly(path, format) }
        let file = try HostFile(path: path, writable: true)
        let header: Qcow2Header? = format == .qcow2 ? try Qcow2Header.parse(file) : nil
        let old = header?.size ?? file.end
        guard size >= old else {
            throw DiskError(
                .badRequest, file: path, "is \(old) bytes large, and would lose its end", mend: "give a larger size")
        }
        guard let header else {
            guard size % RawImage.sectorSize == 0, !file.isDevice else {
                throw DiskError(
                    .badRequest, file: path, "a disk of \(size) bytes cannot be", mend: "give a multiple of 512")
            }
            do throws(BlockError) { return try file.extend(to: size) } catch {
                throw DiskError(
                    .unreadable, file: path, "cannot be made so large (\(error))", mend: "give another size")
            }
        }
        // The backing file, if any, is not looked at.
        let image = try Qcow2Image(file, header, backing: nil)
        try image.grow(to: size)
        do throws(BlockError) { try image.close() } catch {
            throw DiskError(
                .unreadable, file: path, "closing it failed (\(error))", mend: "check the disk that it is on")
        }
    }
}
