import MachineModel

/// What to make when a new qcow2 image is asked for.
public struct Qcow2Options: Sendable {
    /// 2 or 3.
    public var version: UInt32 = 3
    /// Of a cluster, in bytes, as a power of two: 9 to 21.
    public var clusterBits: UInt32 = 16
    /// Width of refcounts, in bits, as a power of two: 0 to 6. Version 2 has 16 bits.
    public var refcountOrder: UInt32 = 4
    public var isZstd = false
    public var hasExtendedL2 = false
    public var hasLazyRefcounts = false
    /// The image underneath, and its format.
    public var backing: (file: String, format: DiskFormat)?

    public init() {}
}

extension Qcow2Image {
    /// Makes an empty image of a disk of `size` bytes; the file must not exist.
    static func create(_ path: String, size: UInt64, _ options: Qcow2Options) throws(DiskError) {
        func bad(_ problem: String, mend: String) -> DiskError {
            DiskError(.badRequest, file: path, problem, mend: mend)
        }
        guard size > 0, size % 512 == 0, size <= UInt64(Int64.max) else {
            throw bad("a disk of \(size) bytes cannot be", mend: "give a multiple of 512")
        }
        guard (9...21).contains(options.clusterBits), options.refcountOrder <= 6, (2...3).contains(options.version)
        else {
            throw bad("that cluster size, refcount width or version cannot be", mend: "leave it out")
        }
        let needs3 = options.refcountOrder != 4 || options.isZstd || options.hasExtendedL2 || options.hasLazyRefcounts
        guard options.version == 3 || !needs3 else { throw bad("version 2 does not have that", mend: "make version 3") }
        guard !options.hasExtendedL2 || options.clusterBits >= 14 else {
            throw bad("extended L2 entries need clusters of 16 KiB or more", mend: "make clusters larger")
        }
        var header = Qcow2Header()
        header.version = options.version
        header.clusterBits = options.clusterBits
        header.size = size
        header.refcountOrder = options.refcountOrder
        header.compressionType = options.isZstd ? 1 : 0
        header.incompatible =
            (options.isZstd ? Qcow2Header.Incompatible.compressionType : 0)
            | (options.hasExtendedL2 ? Qcow2Header.Incompatible.extendedL2 : 0)
        header.compatible = options.hasLazyRefcounts ? Qcow2Header.lazyRefcounts : 0
        header.backingFile = options.backing?.file
        header.backingFormat = options.backing?.format.rawValue
        guard header.neededL1Entries * 8 <= Qcow2Header.maximumL1Bytes else {
            throw bad("a disk of \(size) bytes is too large for such clusters", mend: "make clusters larger")
        }
        header.l1Size = UInt32(header.neededL1Entries)
        header.l1Offset = header.clusterSize
        let used = 1 + (UInt64(header.l1Size) * 8 + header.clusterSize - 1) >> UInt64(header.clusterBits)
        let plan = Qcow2RefcountPlan(
            counts: { _ in 1 }, from: 0, upTo: used, clusterBits: UInt64(header.clusterBits),
            order: header.refcountOrder)
        header.refcountTableOffset = plan.tableOffset
        header.refcountTableClusters = UInt32(plan.tableClusters)
        guard let first = header.encoded() else {
            throw bad(
                "the backing file's name is too long for the header", mend: "make clusters larger, or the name shorter")
        }
        let file = try HostFile(path: path, writable: true, creation: .new)
        do throws(BlockError) {
            try plan.write(to: file, keeping: [])
            try file.sync()
            // Only now it is an image.
            try file.write(first, at: 0)
            try file.sync()
        } catch {
            throw DiskError(
                .unreadable, file: path, "writing it failed (\(error))", mend: "make room, and remove the file")
        }
    }
}
