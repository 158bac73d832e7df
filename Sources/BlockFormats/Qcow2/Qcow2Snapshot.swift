/// An internal snapshot: an L1 table that was put aside (qcow2.rst, "Snapshots").
struct Qcow2Snapshot: Sendable, Equatable {
    let id: String
    let name: String
    let l1Offset: UInt64
    /// In entries.
    let l1Size: UInt32
    /// Of the disk, in bytes; nil where the image does not say, and it is as large as the disk is now.
    let diskSize: UInt64?
    /// When it was taken, seconds since 1970.
    let seconds: UInt32

    private static let fixedSize = 40
    /// More than anything that is not damaged, in bytes.
    private static let maximumExtra = 1024

    /// All snapshots, and where their table ends.
    private static func parse(_ file: HostFile, _ header: Qcow2Header) throws(DiskError) -> (
        [Qcow2Snapshot], end: UInt64
    ) {
        var snapshots: [Qcow2Snapshot] = []
        var at = header.snapshotsOffset
        for number in 0..<header.snapshotCount {
            let part = "snapshot \(number)"
            let bytes = try file.header(at: at, count: fixedSize, part: part)
            let l1Offset = bytes.bigEndian(UInt64.self, at: 0)
            let l1Size = bytes.bigEndian(UInt32.self, at: 8)
            let idSize = Int(bytes.bigEndian(UInt16.self, at: 12))
            let nameSize = Int(bytes.bigEndian(UInt16.self, at: 14))
            let extraSize = Int(bytes.bigEndian(UInt32.self, at: 36))
            guard extraSize <= maximumExtra else {
                throw file.malformed("\(part) has \(extraSize) bytes of extra data")
            }
            guard l1Offset & (header.clusterSize - 1) == 0, UInt64(l1Size) * 8 <= Qcow2Header.maximumL1Bytes else {
                throw file.malformed("the L1 table of \(part) cannot be")
            }
            let rest = try file.header(at: at + UInt64(fixedSize), count: extraSize + idSize + nameSize, part: part)
            let id = String(decoding: rest[extraSize..<extraSize + idSize], as: UTF8.self)
            let name = String(decoding: rest[(extraSize + idSize)...], as: UTF8.self)
            snapshots.append(
                Qcow2Snapshot(
                    id: id, name: name, l1Offset: l1Offset, l1Size: l1Size,
                    diskSize: extraSize >= 16 ? rest.bigEndian(UInt64.self, at: 8) : nil,
                    seconds: bytes.bigEndian(UInt32.self, at: 16)))
            at += UInt64(fixedSize + rest.count + 7) / 8 * 8
        }
        return (snapshots, at)
    }

    static func all(_ file: HostFile, _ header: Qcow2Header) throws(DiskError) -> [Qcow2Snapshot] {
        try parse(file, header).0
    }

    /// The one with that name, or else with that number.
    static func find(_ wanted: String, _ file: HostFile, _ header: Qcow2Header) throws(DiskError) -> Qcow2Snapshot {
        let snapshots = try all(file, header)
        if let found = snapshots.first(where: { $0.name == wanted }) ?? snapshots.first(where: { $0.id == wanted }) {
            guard (found.diskSize ?? 0) <= UInt64(Int64.max) else {
                throw file.malformed("snapshot '\(wanted)' has a disk of \(found.diskSize ?? 0) bytes")
            }
            return found
        }
        let names = snapshots.map(\.name).joined(separator: ", ")
        throw DiskError(
            .badRequest, file: file.path, "has no snapshot '\(wanted)'",
            mend: names.isEmpty ? "it has none at all" : "choose from: \(names)")
    }

    /// The clusters that the table of snapshots takes.
    static func tableClusters(_ file: HostFile, _ header: Qcow2Header) throws(DiskError) -> Range<UInt64> {
        guard header.snapshotCount > 0 else { return 0..<0 }
        let end = try parse(file, header).end
        let bits = UInt64(header.clusterBits)
        return header.snapshotsOffset >> bits..<(end + header.clusterSize - 1) >> bits
    }
}
