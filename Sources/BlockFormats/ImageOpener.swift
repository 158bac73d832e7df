import HostLinux
import MachineModel

/// Opens an image and what is underneath it.
struct ImageOpener {
    let options: DiskOptions
    /// Longer chains are taken for a mistake.
    private static let maximumDepth = 64
    private static let headSize = 512

    func open(_ path: String) throws(DiskError) -> any DiskImage {
        var seen: Set<FileIdentity> = []
        let file = try HostFile(path: path, writable: !options.isReadOnly, cache: options.cache)
        return try open(
            file, format: options.format, snapshot: options.snapshot, isWritable: !options.isReadOnly, &seen)
    }

    private func open(
        _ file: HostFile, format: DiskFormat?, snapshot: String?, isWritable: Bool, _ seen: inout Set<FileIdentity>
    ) throws(DiskError) -> any DiskImage {
        guard seen.insert(file.identity).inserted else { throw file.malformed("is its own backing file") }
        guard seen.count <= Self.maximumDepth else { throw file.malformed("has too many images underneath") }
        let format = if let format { format } else { try Self.find(file, forWriting: isWritable) }
        if isWritable && !format.isWritable {
            throw DiskError(
                .unsupported, file: file.path, "Davit only reads \(format.rawValue)",
                mend: "add readonly=on, or convert it with 'qemu-img convert -O qcow2'")
        }
        if snapshot != nil && format != .qcow2 {
            throw DiskError(.badRequest, file: file.path, "only qcow2 has snapshots", mend: "leave snapshot= out")
        }
        switch format {
        case .raw: return try RawImage(file)
        case .qcow2: return try openQcow2(file, snapshot: snapshot, &seen)
        case .vmdk: return try VMDK.open(file)
        case .vhdx: return try VHDXImage(file)
        }
    }

    /// The format that a file's name and content say.
    static func find(_ file: HostFile, forWriting: Bool) throws(DiskError) -> DiskFormat {
        let head = try file.header(at: 0, count: Int(min(file.end, UInt64(headSize))), part: "its beginning")
        return try DiskFormat.find(file.path, head: head, forWriting: forWriting)
    }

    private func openQcow2(
        _ file: HostFile, snapshot: String?, _ seen: inout Set<FileIdentity>
    ) throws(DiskError) -> any DiskImage {
        let header = try Qcow2Header.parse(file)
        guard let name = header.backingFile else {
            return try Qcow2Image(file, header, backing: nil, snapshot: snapshot)
        }
        guard options.followsBackingFiles else {
            throw DiskError(
                .backingNotAllowed, file: file.path, "lies over another image, '\(name)'",
                mend: "add backing=on if you trust it, or merge them with 'qemu-img convert'")
        }
        let path = DiskFile.resolve(name, besides: file.path)
        let below: HostFile
        do throws(DiskError) { below = try HostFile(path: path, writable: false, cache: options.cache) } catch {
            // This process may be the one that has it: the image names itself, or one above it.
            if error.reason == .inUse, let identity = FileIdentity(path: path), seen.contains(identity) {
                throw file.malformed("is its own backing file")
            }
            throw error
        }
        var format: DiskFormat?
        if let stated = header.backingFormat {
            guard let known = DiskFormat(rawValue: stated) else {
                throw DiskError(
                    .unsupported, file: file.path, "says that '\(name)' is of format '\(stated)'",
                    mend: "convert it with 'qemu-img convert -O qcow2'")
            }
            format = known
        }
        let backing = try open(below, format: format, snapshot: nil, isWritable: false, &seen)
        return try Qcow2Image(file, header, backing: backing, snapshot: snapshot)
    }
}
