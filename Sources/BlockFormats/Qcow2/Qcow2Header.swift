/// The header of a qcow2 image, versions 2 and 3 (docs/interop/qcow2.rst of QEMU, "Header"). Made by `parse` it is within bounds.
struct Qcow2Header: Sendable {
    static let magic: [UInt8] = Array("QFI".utf8) + [0xFB]

    var version: UInt32 = 3
    var clusterBits: UInt32 = 16
    /// Of the virtual disk, in bytes.
    var size: UInt64 = 0
    /// In entries.
    var l1Size: UInt32 = 0
    var l1Offset: UInt64 = 0
    var refcountTableOffset: UInt64 = 0
    var refcountTableClusters: UInt32 = 0
    var snapshotCount: UInt32 = 0
    var snapshotsOffset: UInt64 = 0
    var incompatible: UInt64 = 0
    var compatible: UInt64 = 0
    var autoclear: UInt64 = 0
    var refcountOrder: UInt32 = 4
    var compressionType: UInt8 = 0
    /// The name and the format of the image underneath, as the header has them.
    var backingFile: String?
    var backingFormat: String?

    enum Incompatible {
        static let dirty: UInt64 = 1 << 0
        static let corrupt: UInt64 = 1 << 1
        static let externalData: UInt64 = 1 << 2
        static let compressionType: UInt64 = 1 << 3
        static let extendedL2: UInt64 = 1 << 4
        static let known = dirty | corrupt | compressionType | extendedL2
    }
    static let lazyRefcounts: UInt64 = 1 << 0

    /// Where a field begins that is changed in place, in bytes.
    enum Field {
        static let size: UInt64 = 24
        static let l1Size: UInt64 = 36
        static let refcountTableOffset: UInt64 = 48
        static let incompatible: UInt64 = 72
        static let autoclear: UInt64 = 88
    }

    private enum Extension {
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xE279_2ACA
    }

    static let length2 = 72
    static let length3 = 104
    /// The limits that QEMU has, too, in bytes.
    static let maximumL1Bytes: UInt64 = 32 << 20
    static let maximumRefcountTableBytes: UInt64 = 8 << 20
    static let maximumSnapshots: UInt32 = 65536
    private static let maximumBackingName: UInt32 = 1023

    var clusterSize: UInt64 { 1 << clusterBits }
    var hasExtendedL2: Bool { incompatible & Incompatible.extendedL2 != 0 }
    var isZstd: Bool { compressionType == 1 }
    /// In bytes: one cluster of L2 maps so much.
    var bytesPerL2: UInt64 { clusterSize * (clusterSize / (hasExtendedL2 ? 16 : 8)) }
    /// How many L1 entries the disk's size takes.
    var neededL1Entries: UInt64 { size / bytesPerL2 + (size % bytesPerL2 == 0 ? 0 : 1) }

    /// Reads the header of an image; all that it says about places and sizes is within bounds then.
    static func parse(_ file: HostFile) throws(DiskError) -> Qcow2Header {
        let bytes = try file.header(at: 0, count: length2, part: "the qcow2 header")
        guard bytes.starts(with: magic) else {
            throw DiskError(
                .notThatFormat, file: file.path, "is not a qcow2 image",
                mend: "state the format that it has, such as format=raw")
        }
        var header = Qcow2Header()
        header.version = bytes.bigEndian(UInt32.self, at: 4)
        guard header.version == 2 || header.version == 3 else {
            throw unsupported(file, "is a qcow image of version \(header.version)")
        }
        header.clusterBits = bytes.bigEndian(UInt32.self, at: 20)
        guard (9...21).contains(header.clusterBits) else {
            throw file.malformed("clusters of 2^\(header.clusterBits) bytes cannot be")
        }
        header.size = bytes.bigEndian(UInt64.self, at: 24)
        guard bytes.bigEndian(UInt32.self, at: 32) == 0 else { throw unsupported(file, "is encrypted") }
        header.l1Size = bytes.bigEndian(UInt32.self, at: 36)
        header.l1Offset = bytes.bigEndian(UInt64.self, at: 40)
        header.refcountTableOffset = bytes.bigEndian(UInt64.self, at: 48)
        header.refcountTableClusters = bytes.bigEndian(UInt32.self, at: 56)
        header.snapshotCount = bytes.bigEndian(UInt32.self, at: 60)
        header.snapshotsOffset = bytes.bigEndian(UInt64.self, at: 64)
        var length = UInt32(length2)
        if header.version == 3 { length = try header.parseVersion3(file) }
        try header.checkPlaces(file)
        try header.parseExtensions(file, from: length)
        try header.parseBackingFile(
            file, at: bytes.bigEndian(UInt64.self, at: 8), count: bytes.bigEndian(UInt32.self, at: 16))
        return header
    }

    private static func unsupported(_ file: HostFile, _ what: String) -> DiskError {
        DiskError(
            .unsupported, file: file.path, "\(what), which Davit does not read",
            mend: "convert it with 'qemu-img convert -O qcow2'")
    }

    /// Returns the header's length.
    private mutating func parseVersion3(_ file: HostFile) throws(DiskError) -> UInt32 {
        let bytes = try file.header(at: 0, count: Self.length3, part: "the qcow2 header")
        incompatible = bytes.bigEndian(UInt64.self, at: 72)
        compatible = bytes.bigEndian(UInt64.self, at: 80)
        autoclear = bytes.bigEndian(UInt64.self, at: 88)
        refcountOrder = bytes.bigEndian(UInt32.self, at: 96)
        let length = bytes.bigEndian(UInt32.self, at: 100)
        guard length >= UInt32(Self.length3), UInt64(length) <= clusterSize, length % 8 == 0 else {
            throw file.malformed("a header of \(length) bytes cannot be")
        }
        if incompatible & Incompatible.externalData != 0 {
            throw Self.unsupported(file, "keeps its data in another file")
        }
        let unknown = incompatible & ~Incompatible.known
        guard unknown == 0 else {
            throw Self.unsupported(file, "has features (0x\(String(unknown, radix: 16))) of a later time")
        }
        guard refcountOrder <= 6 else { throw file.malformed("refcounts of 2^\(refcountOrder) bits cannot be") }
        if length > UInt32(Self.length3) {
            compressionType = try file.header(at: 104, count: 1, part: "the qcow2 header")[0]
        }
        guard compressionType <= 1, (compressionType == 1) == (incompatible & Incompatible.compressionType != 0) else {
            throw Self.unsupported(file, "has a compression of type \(compressionType)")
        }
        if hasExtendedL2 && clusterBits < 14 {
            throw file.malformed("extended L2 entries with clusters of 2^\(clusterBits) bytes cannot be")
        }
        return length
    }

    private func checkPlaces(_ file: HostFile) throws(DiskError) {
        guard size <= UInt64(Int64.max) else { throw file.malformed("a disk of \(size) bytes cannot be") }
        guard UInt64(l1Size) * 8 <= Self.maximumL1Bytes else {
            throw file.malformed("an L1 table of \(l1Size) entries is too long")
        }
        guard neededL1Entries <= UInt64(l1Size) else {
            throw file.malformed("its L1 table of \(l1Size) entries is too short for a disk of \(size) bytes")
        }
        guard UInt64(refcountTableClusters) <= Self.maximumRefcountTableBytes >> clusterBits else {
            throw file.malformed("a refcount table of \(refcountTableClusters) clusters is too long")
        }
        guard refcountTableClusters > 0 else { throw file.malformed("it has no refcount table") }
        guard snapshotCount <= Self.maximumSnapshots else {
            throw file.malformed("\(snapshotCount) snapshots cannot be")
        }
        var places = [
            (0..<clusterSize, "header"),
            try place(file, refcountTableOffset, UInt64(refcountTableClusters) << clusterBits, "refcount table"),
        ]
        if l1Size > 0 { places.append(try place(file, l1Offset, UInt64(l1Size) * 8, "L1 table")) }
        if snapshotCount > 0 { places.append(try place(file, snapshotsOffset, 1, "snapshot table")) }
        for (index, one) in places.enumerated() {
            for other in places[..<index] where one.0.overlaps(other.0) {
                throw file.malformed("its \(one.1) lies over its \(other.1)")
            }
        }
    }

    private func place(
        _ file: HostFile, _ offset: UInt64, _ count: UInt64, _ what: String
    ) throws(DiskError) -> (Range<UInt64>, String) {
        guard offset & (clusterSize - 1) == 0, offset <= Self.maximumOffset else {
            throw file.malformed("its \(what) at offset \(offset) cannot be")
        }
        return (offset..<offset + count, what)
    }

    /// Bits 9 to 55 of a table's entries.
    static let maximumOffset: UInt64 = (1 << 56) - 1

    private mutating func parseExtensions(_ file: HostFile, from start: UInt32) throws(DiskError) {
        let area = try file.header(at: 0, count: Int(min(clusterSize, file.end)), part: "the qcow2 header")
        var at = Int(start)
        while at + 8 <= area.count {
            let type = area.bigEndian(UInt32.self, at: at)
            let count = Int(area.bigEndian(UInt32.self, at: at + 4))
            at += 8
            if type == Extension.end { return }
            guard count <= area.count - at else { throw file.malformed("a header extension is longer than the header") }
            if type == Extension.backingFormat {
                backingFormat = String(decoding: area[at..<at + count], as: UTF8.self)
            }
            at += (count + 7) / 8 * 8
        }
    }

    private mutating func parseBackingFile(_ file: HostFile, at offset: UInt64, count: UInt32) throws(DiskError) {
        guard offset != 0 else { return }
        guard count <= Self.maximumBackingName, offset <= clusterSize, UInt64(count) <= clusterSize - offset else {
            throw file.malformed("the name of its backing file lies outside the header")
        }
        let bytes = try file.header(at: offset, count: Int(count), part: "the name of the backing file")
        if count > 0 { backingFile = String(decoding: bytes, as: UTF8.self) }
    }

    /// The header's cluster as it lies in a file, or nil if the names do not fit into it.
    func encoded() -> [UInt8]? {
        let length = version == 2 ? Self.length2 : Self.length3 + 8
        var extensions: [UInt8] = []
        if let backingFormat, backingFile != nil {
            extensions.appendBigEndian(Extension.backingFormat)
            extensions.appendBigEndian(UInt32(backingFormat.utf8.count))
            extensions += Array(backingFormat.utf8)
            while extensions.count % 8 != 0 { extensions.append(0) }
        }
        extensions.appendBigEndian(UInt64(Extension.end))
        let name = Array((backingFile ?? "").utf8)
        guard name.count <= Int(Self.maximumBackingName), length + extensions.count + name.count <= Int(clusterSize)
        else { return nil }

        var bytes = Self.magic
        bytes.appendBigEndian(version)
        bytes.appendBigEndian(name.isEmpty ? 0 : UInt64(length + extensions.count))
        bytes.appendBigEndian(UInt32(name.count))
        bytes.appendBigEndian(clusterBits)
        bytes.appendBigEndian(size)
        bytes.appendBigEndian(UInt32(0))
        bytes.appendBigEndian(l1Size)
        bytes.appendBigEndian(l1Offset)
        bytes.appendBigEndian(refcountTableOffset)
        bytes.appendBigEndian(refcountTableClusters)
        bytes.appendBigEndian(snapshotCount)
        bytes.appendBigEndian(snapshotsOffset)
        if version == 3 {
            bytes.appendBigEndian(incompatible)
            bytes.appendBigEndian(compatible)
            bytes.appendBigEndian(autoclear)
            bytes.appendBigEndian(refcountOrder)
            bytes.appendBigEndian(UInt32(length))
            bytes += [compressionType, 0, 0, 0, 0, 0, 0, 0]
        }
        bytes += extensions + name
        return bytes + [UInt8](repeating: 0, count: Int(clusterSize) - bytes.count)
    }
}
