/// Where a disk's partitions are: a GUID partition table (UEFI 2.10, 5.3), or the older one of the master boot record with its four
/// primary partitions and the chain of logical ones.
struct PartitionTable {
    struct Partition: Equatable {
        /// As Linux numbers it, from 1 on.
        var number: Int
        /// In bytes.
        var offset: UInt64
        var count: UInt64
    }

    private static let sectorSize: UInt64 = 512
    private static let recordOffset = 446
    private static let recordSize = 16
    private static let extendedTypes: Set<UInt8> = [0x05, 0x0F, 0x85]
    private static let protectiveType: UInt8 = 0xEE
    /// What is looked at; a table may say anything.
    private static let maximumCount = 128

    /// Empty if there is no table.
    let partitions: [Partition]

    init(_ disk: DiskReader) throws(DiskContentsError) {
        guard disk.size >= Self.sectorSize * 2 else {
            partitions = []
            return
        }
        let record = try disk.read(at: 0, count: Int(Self.sectorSize))
        guard record.number(510, as: UInt16.self) == 0xAA55 else {
            partitions = []
            return
        }
        let isProtective = (0..<4).contains { Self.type(record, $0) == Self.protectiveType }
        partitions = try isProtective ? Self.readGUIDTable(disk) : Self.readRecords(disk, record)
    }

    private static func type(_ record: [UInt8], _ index: Int) -> UInt8 {
        record.number(recordOffset + index * recordSize + 4, as: UInt8.self)
    }

    /// First sector and count.
    private static func extent(_ record: [UInt8], _ index: Int) -> (UInt64, UInt64) {
        let place = recordOffset + index * recordSize
        return (UInt64(record.number(place + 8, as: UInt32.self)), UInt64(record.number(place + 12, as: UInt32.self)))
    }

    private static func readRecords(_ disk: DiskReader, _ record: [UInt8]) throws(DiskContentsError) -> [Partition] {
        var found: [Partition] = []
        var extended: UInt64?
        for index in 0..<4 {
            let (first, count) = extent(record, index)
            if extendedTypes.contains(type(record, index)) {
                extended = extended ?? first
            } else if type(record, index) != 0, count > 0 {
                found.append(Partition(number: index + 1, offset: first * sectorSize, count: count * sectorSize))
            }
        }
        guard let extended else { return found }
        // Each logical partition's record stands in front of it, and its second line leads to the next.
        var place = extended
        for number in 5..<5 + maximumCount {
            guard place * sectorSize <= disk.size - sectorSize else { break }
            let record = try disk.read(at: place * sectorSize, count: Int(sectorSize))
            guard record.number(510, as: UInt16.self) == 0xAA55 else { break }
            let (first, count) = extent(record, 0)
            if type(record, 0) != 0, count > 0 {
                found.append(
                    Partition(number: number, offset: (place + first) * sectorSize, count: count * sectorSize))
            }
            let (next, _) = extent(record, 1)
            guard type(record, 1) != 0, next > 0 else { break }
            place = extended + next
        }
        return found
    }

    private static func readGUIDTable(_ disk: DiskReader) throws(DiskContentsError) -> [Partition] {
        let header = try disk.read(at: sectorSize, count: Int(sectorSize))
        guard header.starts(with: "EFI PART".utf8) else { throw .damaged("its GUID partition table has no header") }
        let (place, overflow) = header.number(72, as: UInt64.self).multipliedReportingOverflow(by: sectorSize)
        let count = min(Int(header.number(80, as: UInt32.self)), maximumCount)
        let size = Int(header.number(84, as: UInt32.self))
        guard !overflow, (128...4096).contains(size) else { throw .damaged("the header of its GUID partition table") }
        let entries = try disk.read(at: place, count: count * size)
        var found: [Partition] = []
        for index in 0..<count {
            let entry = index * size
            let isUsed = entries[entry..<entry + 16].contains { $0 != 0 }
            let (first, last) = (
                entries.number(entry + 32, as: UInt64.self), entries.number(entry + 40, as: UInt64.self)
            )
            guard isUsed, first <= last, last < disk.size / sectorSize else { continue }
            found.append(
                Partition(number: index + 1, offset: first * sectorSize, count: (last - first + 1) * sectorSize))
        }
        return found
    }
}
