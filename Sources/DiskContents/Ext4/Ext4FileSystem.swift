/// Files of an ext4 file system, for reading alone (Linux: Documentation/filesystems/ext4).
///
/// What its journal holds is not looked at, and checksums are not checked: what is sought has been on the disk for long. Left out: files
/// mapped without extents (ext2 and ext3), encryption, data inside inodes.
struct Ext4FileSystem {
    private static let superblockOffset: UInt64 = 1024
    private static let superblockSize = 1024
    private static let magic: UInt16 = 0xEF53
    private static let rootInode: UInt32 = 2

    /// s_feature_incompat: what one must know to read.
    private enum Incompatible {
        static let fileType: UInt32 = 0x2
        static let recover: UInt32 = 0x4
        static let metaGroups: UInt32 = 0x10
        static let extents: UInt32 = 0x40
        static let is64Bit: UInt32 = 0x80
        static let multiMount: UInt32 = 0x100
        static let flexGroups: UInt32 = 0x200
        static let checksumSeed: UInt32 = 0x2000
        static let largeDirectories: UInt32 = 0x4000
        static let known =
            fileType | recover | metaGroups | extents | is64Bit | multiMount | flexGroups | checksumSeed
            | largeDirectories
    }

    let disk: DiskReader
    /// In bytes.
    let blockSize: Int
    private let firstDataBlock: UInt64
    private let inodeCount: UInt32
    private let inodesPerGroup: UInt32
    private let blocksPerGroup: UInt64
    private let inodeSize: Int
    private let descriptorSize: Int
    /// Groups from here on have their descriptors in their own meta group; nil if none has.
    private let firstMetaGroup: UInt64?

    /// Nil if there is no ext4 file system here.
    init?(_ disk: DiskReader) throws(DiskContentsError) {
        guard disk.size >= Self.superblockOffset + UInt64(Self.superblockSize) else { return nil }
        let block = try disk.read(at: Self.superblockOffset, count: Self.superblockSize)
        guard block.number(0x38, as: UInt16.self) == Self.magic else { return nil }
        let features = block.number(0x60, as: UInt32.self)
        guard features & ~Incompatible.known == 0 else {
            throw .unsupported("incompatible features 0x\(String(features & ~Incompatible.known, radix: 16))")
        }
        let logarithm = block.number(0x18, as: UInt32.self)
        guard logarithm <= 6 else { throw .damaged("the block size of its file system") }
        self.disk = disk
        blockSize = 1024 << Int(logarithm)
        firstDataBlock = UInt64(block.number(0x14, as: UInt32.self))
        inodeCount = block.number(0x00, as: UInt32.self)
        blocksPerGroup = UInt64(block.number(0x20, as: UInt32.self))
        inodesPerGroup = block.number(0x28, as: UInt32.self)
        let isDynamic = block.number(0x4C, as: UInt32.self) >= 1
        inodeSize = isDynamic ? Int(block.number(0x58, as: UInt16.self)) : 128
        descriptorSize = features & Incompatible.is64Bit != 0 ? Int(block.number(0xFE, as: UInt16.self)) : 32
        firstMetaGroup =
            features & Incompatible.metaGroups != 0 ? UInt64(block.number(0x104, as: UInt32.self)) : nil
        guard inodesPerGroup > 0, blocksPerGroup > 0, (128...blockSize).contains(inodeSize),
            (32...blockSize).contains(descriptorSize)
        else { throw .damaged("the superblock of its file system") }
    }

    /// Where a block begins, in bytes.
    func place(ofBlock block: UInt64) throws(DiskContentsError) -> UInt64 {
        let (place, overflow) = block.multipliedReportingOverflow(by: UInt64(blockSize))
        guard !overflow, place < disk.size else { throw .damaged("a block past the end of its file system") }
        return place
    }

    var root: Ext4Inode { get throws(DiskContentsError) { try inode(Self.rootInode) } }

    func inode(_ number: UInt32) throws(DiskContentsError) -> Ext4Inode {
        guard number > 0, number <= inodeCount else { throw .damaged("a directory names inode \(number)") }
        let group = UInt64((number - 1) / inodesPerGroup)
        let index = UInt64((number - 1) % inodesPerGroup)
        let descriptor = try disk.read(at: placeOfDescriptor(group), count: descriptorSize)
        let high = descriptorSize >= 64 ? descriptor.number(0x28, as: UInt32.self) : 0
        let table = UInt64(descriptor.number(0x08, as: UInt32.self)) | UInt64(high) << 32
        let (place, overflow) = try place(ofBlock: table).addingReportingOverflow(index * UInt64(inodeSize))
        guard !overflow else { throw .damaged("the inode table of group \(group)") }
        return try Ext4Inode(number: number, bytes: disk.read(at: place, count: inodeSize))
    }

    private func placeOfDescriptor(_ group: UInt64) throws(DiskContentsError) -> UInt64 {
        let perBlock = UInt64(blockSize / descriptorSize)
        let metaGroup = group / perBlock
        let offset = group % perBlock * UInt64(descriptorSize)
        guard let firstMetaGroup, metaGroup >= firstMetaGroup else {
            // Behind the superblock, which is in block 0 or, where blocks are that small, in block 1.
            return try place(ofBlock: Self.superblockOffset / UInt64(blockSize) + 1 + metaGroup) + offset
        }
        // In the meta group's first group, behind a copy of the superblock if that group has one. It has none but in group 0 where, as in
        // Linux, sparse_super is on, and in the groups 1 and powers of 3, 5 and 7.
        let first = metaGroup * perBlock
        let (start, overflow) = first.multipliedReportingOverflow(by: blocksPerGroup)
        guard !overflow else { throw .damaged("a group past the end of its file system") }
        let copy: UInt64 = Self.hasSuperblock(first) ? 1 : 0
        return try place(ofBlock: firstDataBlock + start + copy) + offset
    }

    private static func hasSuperblock(_ group: UInt64) -> Bool {
        guard group > 1 else { return true }
        return [3, 5, 7].contains { (base: UInt64) in
            var power = base
            while power < group { power *= base }
            return power == group
        }
    }
}
