/// The log of changes that a VHDX file's writer had begun ([MS-VHDX] 2.3).
enum VHDXLog {
    private static let sectorSize = VHDXFile.sectorSize
    private static let maximumLog: UInt32 = 64 << 20
    private static let maximumZeroed: UInt64 = 64 << 20

    private struct Entry {
        let offset: Int
        let count: Int
        let tail: Int
        let sequence: UInt64
        let descriptors: Int
        /// How long the file was at least when the entry was written.
        let fileEnd: UInt64
        let bytes: [UInt8]
    }

    /// The sectors that the log's active sequence replaces, by number.
    static func replay(
        _ file: HostFile, guid: [UInt8], at offset: UInt64, count: UInt32
    ) throws(DiskError) -> [UInt64: [UInt8]] {
        guard count > 0, count <= maximumLog, Int(count) % (1 << 20) == 0, offset % (1 << 20) == 0 else {
            throw file.malformed("its log of \(count) bytes at offset \(offset) cannot be")
        }
        let log = try file.header(at: offset, count: Int(count), part: "the log")
        guard let sequence = activeSequence(log, guid) else { throw file.malformed("its log is damaged") }
        guard let last = sequence.last, last.fileEnd <= file.end else {
            throw DiskError(
                .truncated, file: file.path, "is shorter than its log says",
                mend: "the file was cut short; copy it again")
        }
        var sectors: [UInt64: [UInt8]] = [:]
        for entry in sequence { try apply(entry, to: &sectors, file) }
        return sectors
    }

    /// The newest run of good entries with ascending numbers in which the last one's tail is the first (2.3.3).
    private static func activeSequence(_ log: [UInt8], _ guid: [UInt8]) -> [Entry]? {
        var best: [Entry] = []
        for start in stride(from: 0, to: log.count, by: sectorSize) {
            var run: [Entry] = []
            var at = start
            var length = 0
            while length < log.count, let entry = entry(log, at, guid),
                run.last.map({ $0.sequence &+ 1 == entry.sequence }) ?? true
            {
                run.append(entry)
                length += entry.count
                at = (at + entry.count) % log.count
            }
            guard let last = run.last, length <= log.count else { continue }
            // Older entries that still stand before the tail have been carried out.
            guard let tail = run.firstIndex(where: { $0.offset == last.tail }) else { continue }
            if best.last.map({ $0.sequence < last.sequence }) ?? true { best = Array(run[tail...]) }
        }
        return best.isEmpty ? nil : best
    }

    /// The entry that begins at `at` (2.3.1.1), which may go round the log's end; nil if there is no good one.
    private static func entry(_ log: [UInt8], _ at: Int, _ guid: [UInt8]) -> Entry? {
        let head = wrapped(log, at, 64)
        guard head.starts(with: Array("loge".utf8)), Array(head[32..<48]) == guid else { return nil }
        let count = Int(head.littleEndian(UInt32.self, at: 8))
        let tail = Int(head.littleEndian(UInt32.self, at: 12))
        let descriptors = Int(head.littleEndian(UInt32.self, at: 24))
        guard count >= sectorSize, count <= log.count, count % sectorSize == 0, tail % sectorSize == 0,
            tail < log.count,
            descriptors <= (count - 64) / 32
        else { return nil }
        let bytes = wrapped(log, at, count)
        guard CRC32C.isGood(bytes) else { return nil }
        return Entry(
            offset: at, count: count, tail: tail, sequence: head.littleEndian(UInt64.self, at: 16),
            descriptors: descriptors, fileEnd: head.littleEndian(UInt64.self, at: 48), bytes: bytes)
    }

    private static func wrapped(_ log: [UInt8], _ at: Int, _ count: Int) -> [UInt8] {
        let first = log[at..<min(at + count, log.count)]
        return Array(first) + log[..<(count - first.count)]
    }

    private static func apply(
        _ entry: Entry, to sectors: inout [UInt64: [UInt8]], _ file: HostFile
    ) throws(DiskError) {
        // Data sectors follow the sectors of descriptors.
        var data = (64 + entry.descriptors * 32 + sectorSize - 1) / sectorSize * sectorSize
        let size = UInt64(sectorSize)
        for number in 0..<entry.descriptors {
            let at = 64 + number * 32
            let place = entry.bytes.littleEndian(UInt64.self, at: at + 16)
            guard place % size == 0, entry.bytes.littleEndian(UInt64.self, at: at + 24) == entry.sequence else {
                throw file.malformed("its log is damaged")
            }
            switch Array(entry.bytes[at..<at + 4]) {
            case Array("zero".utf8):
                let count = entry.bytes.littleEndian(UInt64.self, at: at + 8)
                guard count % size == 0, count <= maximumZeroed, place <= UInt64(Int64.max) else {
                    throw file.malformed("its log clears \(count) bytes")
                }
                for sector in place / size..<(place + count) / size {
                    sectors[sector] = [UInt8](repeating: 0, count: sectorSize)
                }
            case Array("desc".utf8):
                guard data + sectorSize <= entry.count, entry.bytes[data..<data + 4].elementsEqual(Array("data".utf8))
                else {
                    throw file.malformed("its log is damaged")
                }
                // The sector's first eight and last four bytes stand in the descriptor.
                sectors[place / size] =
                    Array(entry.bytes[at + 8..<at + 16]) + entry.bytes[data + 8..<data + sectorSize - 4]
                    + entry.bytes[at + 4..<at + 8]
                data += sectorSize
            default: throw file.malformed("its log is damaged")
            }
        }
    }
}
