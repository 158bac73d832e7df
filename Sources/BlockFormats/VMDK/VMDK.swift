import Glibc
import MachineModel

/// VMware's disks: a text that describes them, and extents behind it ("Virtual Disk Format 5.0", VMware 2011).
enum VMDK {
    static let sparseMagic = Array("KDMV".utf8)
    private static let descriptorMagic = Array("# Disk DescriptorFile".utf8)
    /// Texts are shorter, in bytes.
    static let maximumDescriptor: UInt64 = 1 << 20
    private static let maximumExtents = 4096

    /// Opens the disk whose description, or whose only extent, is in `file`.
    static func open(_ file: HostFile) throws(DiskError) -> any DiskImage {
        let head = try file.header(at: 0, count: Int(min(file.end, 512)), part: "the VMDK header")
        if head.starts(with: sparseMagic) {
            let sparse = try VMDKSparseExtent(file)
            if let text = try sparse.descriptor() { _ = try VMDKDescriptor(text, file) }
            return ExtentList([(sparse.size, .sparse(sparse))])
        }
        guard head.starts(with: descriptorMagic) else {
            throw DiskError(
                .notThatFormat, file: file.path, "is not a VMDK image",
                mend: "state the format that it has, such as format=raw")
        }
        guard file.end <= maximumDescriptor else { throw file.malformed("its description is too long") }
        let bytes = try file.header(at: 0, count: Int(file.end), part: "the description")
        let descriptor = try VMDKDescriptor(String(decoding: bytes, as: UTF8.self), file)
        guard !descriptor.extents.isEmpty, descriptor.extents.count <= maximumExtents else {
            throw file.malformed("it has \(descriptor.extents.count) extents")
        }
        var extents: [(UInt64, ExtentList.Source)] = []
        for extent in descriptor.extents {
            let count = extent.sectors * 512
            switch extent.kind {
            case .zero: extents.append((count, .zeros))
            case .flat(let name, let offset):
                let data = try besides(file, name)
                guard offset <= data.end, count <= data.end - offset else {
                    throw DiskError(
                        .truncated, file: data.path, "is shorter than '\(file.path)' says", mend: "copy it again")
                }
                extents.append((count, .flat(data, offset)))
            case .sparse(let name):
                let sparse = try VMDKSparseExtent(try besides(file, name))
                guard sparse.size >= count else { throw file.malformed("extent '\(name)' is too short") }
                extents.append((count, .sparse(sparse)))
            }
        }
        return ExtentList(extents)
    }

    /// A file that a description names: one in the same directory, no other.
    private static func besides(_ file: HostFile, _ name: String) throws(DiskError) -> HostFile {
        guard !name.contains("/"), !name.isEmpty, name != ".." else {
            throw DiskError(
                .backingNotAllowed, file: file.path, "names an extent in another directory, '\(name)'",
                mend: "put its extents beside it")
        }
        let path = DiskFile.resolve(name, besides: file.path)
        var status = stat()
        if lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK {
            throw DiskError(
                .backingNotAllowed, file: file.path, "its extent '\(name)' is a symbolic link",
                mend: "put the file itself beside it")
        }
        return try HostFile(path: path, writable: false, cache: file.cache)
    }
}

/// Stretches of a disk, one behind the other.
final class ExtentList: ReadOnlyImage {
    enum Source: Sendable {
        case zeros
        case flat(HostFile, UInt64)
        case sparse(VMDKSparseExtent)
    }

    let size: UInt64
    private let extents: [(start: UInt64, count: UInt64, source: Source)]

    /// Lengths in bytes; all together they are less than 2^63.
    init(_ parts: [(count: UInt64, source: Source)]) {
        var extents: [(start: UInt64, count: UInt64, source: Source)] = []
        var end: UInt64 = 0
        for part in parts {
            extents.append((end, part.count, part.source))
            end += part.count
        }
        self.extents = extents
        size = end
    }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        var done = 0
        for extent in extents where done < buffers.count {
            let at = offset + UInt64(done)
            guard at >= extent.start, at - extent.start < extent.count else { continue }
            let inside = at - extent.start
            let piece = buffers.slice(done, Int(min(extent.count - inside, UInt64(buffers.count - done))))
            switch extent.source {
            case .zeros: piece.clear()
            case .flat(let file, let start): try file.read(at: start + inside, into: piece)
            case .sparse(let sparse): try sparse.read(at: inside, into: piece)
            }
            done += piece.count
        }
    }
}
