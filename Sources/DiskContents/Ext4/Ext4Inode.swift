/// A file's description (Linux: Documentation/filesystems/ext4/inodes.rst).
struct Ext4Inode {
    enum Kind {
        case file, directory, link, other
    }

    private enum Flags {
        static let encrypted: UInt32 = 0x800
        static let extents: UInt32 = 0x80000
        static let inlineData: UInt32 = 0x1000_0000
    }

    /// Of i_block, in bytes.
    static let mapSize = 60
    private static let mapOffset = 0x28

    let number: UInt32
    let kind: Kind
    /// In bytes.
    let size: UInt64
    /// i_block: the root of the extent tree, or a short link's target.
    let map: [UInt8]
    private let flags: UInt32

    init(number: UInt32, bytes: [UInt8]) throws(DiskContentsError) {
        self.number = number
        switch bytes.number(0, as: UInt16.self) & 0xF000 {
        case 0x8000: kind = .file
        case 0x4000: kind = .directory
        case 0xA000: kind = .link
        default: kind = .other
        }
        size = bytes.number(low: 0x04, high: 0x6C)
        flags = bytes.number(0x20, as: UInt32.self)
        map = Array(bytes[Self.mapOffset..<Self.mapOffset + Self.mapSize])
        guard flags & Flags.encrypted == 0 else { throw .unsupported("encrypted files") }
        guard flags & Flags.inlineData == 0 else { throw .unsupported("data inside inodes") }
    }

    var hasExtents: Bool { flags & Flags.extents != 0 }
}

/// A run of a file's blocks.
struct Ext4Extent {
    /// The first of the file's blocks that is in it.
    var first: UInt32
    var count: UInt32
    /// Where it lies on the disk, in blocks.
    var start: UInt64
    /// Room that was set aside and never written: zeros.
    var isUnwritten: Bool
}

extension Ext4FileSystem {
    private static let extentMagic: UInt16 = 0xF30A
    private static let entrySize = 12
    /// Linux makes no deeper trees.
    private static let maximumDepth = 5
    /// Longer runs count as unwritten by so much.
    private static let unwrittenBias: UInt32 = 32768
    private static let maximumLinkSize: UInt64 = 4096

    /// A file's first bytes: all of them unless there are more than `limit`, which is an error.
    func contents(of inode: Ext4Inode, limit: UInt64, name: String) throws(DiskContentsError) -> [UInt8] {
        guard inode.size <= limit else { throw .damaged("\(name) is of \(inode.size) bytes") }
        if inode.kind == .link && !inode.hasExtents && inode.size < UInt64(Ext4Inode.mapSize) {
            return Array(inode.map.prefix(Int(inode.size)))
        }
        guard inode.size > 0 else { return [] }
        guard inode.hasExtents else { throw .unsupported("files without extents") }
        var bytes = [UInt8](repeating: 0, count: Int(inode.size))
        var budget = Int(inode.size) / blockSize + 1024
        try readNode(inode.map, depth: nil, into: &bytes, &budget)
        return bytes
    }

    /// One node of an extent tree and all below it. `depth` is what its parent promises; `budget` ends a tree that leads to itself.
    private func readNode(
        _ node: [UInt8], depth promised: Int?, into bytes: inout [UInt8], _ budget: inout Int
    ) throws(DiskContentsError) {
        let depth = Int(node.number(6, as: UInt16.self))
        let count = Int(node.number(2, as: UInt16.self))
        guard node.number(0, as: UInt16.self) == Self.extentMagic, depth <= Self.maximumDepth,
            promised == nil || promised == depth, count <= node.count / Self.entrySize - 1
        else { throw .damaged("an extent tree of its file system") }
        for index in 0..<count {
            budget -= 1
            guard budget >= 0 else { throw .damaged("an extent tree of its file system is too large") }
            let entry = Self.entrySize * (index + 1)
            if depth == 0 {
                try readExtent(Self.extent(node, entry), into: &bytes)
            } else {
                let child =
                    UInt64(node.number(entry + 4, as: UInt32.self))
                    | UInt64(node.number(entry + 8, as: UInt16.self)) << 32
                let place = try place(ofBlock: child)
                try readNode(disk.read(at: place, count: blockSize), depth: depth - 1, into: &bytes, &budget)
            }
        }
    }

    private static func extent(_ node: [UInt8], _ entry: Int) -> Ext4Extent {
        let length = UInt32(node.number(entry + 4, as: UInt16.self))
        let isUnwritten = length > unwrittenBias
        return Ext4Extent(
            first: node.number(entry, as: UInt32.self), count: isUnwritten ? length - unwrittenBias : length,
            start: UInt64(node.number(entry + 8, as: UInt32.self))
                | UInt64(node.number(entry + 6, as: UInt16.self)) << 32,
            isUnwritten: isUnwritten)
    }

    /// What of it is past the file's end is left out.
    private func readExtent(_ extent: Ext4Extent, into bytes: inout [UInt8]) throws(DiskContentsError) {
        let offset = UInt64(extent.first) * UInt64(blockSize)
        guard !extent.isUnwritten, extent.count > 0, offset < UInt64(bytes.count) else { return }
        let count = min(UInt64(extent.count) * UInt64(blockSize), UInt64(bytes.count) - offset)
        let place = try place(ofBlock: extent.start)
        var failure: DiskContentsError?
        bytes.withUnsafeMutableBytes { all in
            let target = UnsafeMutableRawBufferPointer(rebasing: all[Int(offset)..<Int(offset + count)])
            do throws(DiskContentsError) { try disk.read(at: place, into: target) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    func target(of link: Ext4Inode) throws(DiskContentsError) -> String {
        String(decoding: try contents(of: link, limit: Self.maximumLinkSize, name: "a symbolic link"), as: UTF8.self)
    }
}
