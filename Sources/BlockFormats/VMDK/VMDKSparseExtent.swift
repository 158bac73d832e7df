import CCompression
import MachineModel
import Synchronization

/// A VMDK extent whose grains are found through a directory of tables, packed or not ("Virtual Disk Format 5.0", "Hosted Sparse
/// Extents" and "Stream-Optimized Compressed Sparse Extents").
final class VMDKSparseExtent: Sendable {
    /// In bytes.
    let size: UInt64
    private let file: HostFile
    private let grainSize: UInt64
    private let entriesPerTable: UInt64
    private let descriptorPlace: (offset: UInt64, count: UInt64)
    private let isCompressed: Bool
    private let hasZeroGrains: Bool
    /// Places of the tables, in sectors; 0 where there is none.
    private let directory: [UInt32]
    private let cache = Mutex(Cache())

    private struct Cache {
        var tables: [UInt32: [UInt32]] = [:]
        var grain: (sector: UInt32, bytes: [UInt8])?
    }

    private enum Flag {
        static let zeroGrains: UInt32 = 1 << 2
        static let compressed: UInt32 = 1 << 16
    }

    private static let sector: UInt64 = 512
    private static let directoryAtEnd = UInt64.max
    private static let maximumDirectory: UInt64 = 64 << 20
    private static let maximumTables = 1024

    init(_ file: HostFile) throws(DiskError) {
        var bytes = try file.header(at: 0, count: 512, part: "the VMDK header")
        guard bytes.starts(with: VMDK.sparseMagic) else { throw file.malformed("an extent has no VMDK header") }
        if bytes.littleEndian(UInt64.self, at: 56) == Self.directoryAtEnd {
            // It was written in one go: the true header stands before the end-of-stream marker.
            guard file.end >= 1536 else { throw file.malformed("it has no footer") }
            bytes = try file.header(at: file.end - 1024, count: 512, part: "the VMDK footer")
            guard bytes.starts(with: VMDK.sparseMagic) else { throw file.malformed("it has no footer") }
        }
        let version = bytes.littleEndian(UInt32.self, at: 4)
        guard (1...3).contains(version) else {
            throw DiskError(
                .unsupported, file: file.path, "is a VMDK of version \(version)",
                mend: "convert it with 'qemu-img convert -O qcow2'")
        }
        let flags = bytes.littleEndian(UInt32.self, at: 8)
        let capacity = bytes.littleEndian(UInt64.self, at: 12)
        let grain = bytes.littleEndian(UInt64.self, at: 20)
        let entries = bytes.littleEndian(UInt32.self, at: 44)
        let directoryAt = bytes.littleEndian(UInt64.self, at: 56)
        guard capacity > 0, capacity <= UInt64(Int64.max) / Self.sector else {
            throw file.malformed("a disk of \(capacity) sectors cannot be")
        }
        guard (1...4096).contains(grain), grain & (grain - 1) == 0 else {
            throw file.malformed("grains of \(grain) sectors cannot be")
        }
        guard (1...4096).contains(entries) else { throw file.malformed("tables of \(entries) grains cannot be") }
        isCompressed = flags & Flag.compressed != 0
        let algorithm = bytes.littleEndian(UInt16.self, at: 77)
        guard !isCompressed || algorithm == 1 else { throw file.malformed("compression \(algorithm) is not known") }
        hasZeroGrains = flags & Flag.zeroGrains != 0
        self.file = file
        size = capacity * Self.sector
        grainSize = grain * Self.sector
        entriesPerTable = UInt64(entries)
        let descriptorAt = bytes.littleEndian(UInt64.self, at: 28)
        let descriptorSize = bytes.littleEndian(UInt64.self, at: 36)
        descriptorPlace = (descriptorAt, descriptorSize)
        let perTable = entriesPerTable * grain
        let tables = (capacity - 1) / perTable + 1
        guard tables * 4 <= Self.maximumDirectory, directoryAt <= file.end / Self.sector else {
            throw file.malformed("its grain directory at sector \(directoryAt) cannot be")
        }
        let raw = try file.header(at: directoryAt * Self.sector, count: Int(tables) * 4, part: "the grain directory")
        directory = (0..<Int(tables)).map { raw.littleEndian(UInt32.self, at: $0 * 4) }
    }

    /// The description that the extent carries, if any.
    func descriptor() throws(DiskError) -> String? {
        let (at, count) = descriptorPlace
        guard at > 0, count > 0 else { return nil }
        guard at <= file.end / Self.sector, count <= VMDK.maximumDescriptor / Self.sector else {
            throw file.malformed("its description at sector \(at) cannot be")
        }
        let bytes = try file.header(at: at * Self.sector, count: Int(count * Self.sector), part: "the description")
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        var done = 0
        while done < buffers.count {
            let at = offset + UInt64(done)
            let inGrain = at % grainSize
            let piece = buffers.slice(done, Int(min(grainSize - inGrain, UInt64(buffers.count - done))))
            let sector = try grain(at / grainSize)
            if sector == 0 || sector == 1 && hasZeroGrains {
                piece.clear()
            } else if isCompressed {
                let bytes = try unpack(sector)
                bytes.withUnsafeBytes { grain in
                    piece.fill(from: UnsafeRawBufferPointer(rebasing: grain[Int(inGrain)..<Int(inGrain) + piece.count]))
                }
            } else {
                try file.read(at: UInt64(sector) * Self.sector + inGrain, into: piece)
            }
            done += piece.count
        }
    }

    /// Where a grain lies, in sectors.
    private func grain(_ number: UInt64) throws(BlockError) -> UInt32 {
        let place = directory[Int(number / entriesPerTable)]
        guard place != 0 else { return 0 }
        let index = Int(number % entriesPerTable)
        if let entry = cache.withLock({ $0.tables[place]?[index] }) { return entry }
        let start = UInt64(place) * Self.sector
        guard start < file.end else { throw .corrupt("grain table at sector \(place)") }
        let bytes = try file.bytes(at: start, count: Int(entriesPerTable) * 4)
        let table = (0..<Int(entriesPerTable)).map { bytes.littleEndian(UInt32.self, at: $0 * 4) }
        cache.withLock { cache in
            if cache.tables.count >= Self.maximumTables { cache.tables = [:] }
            cache.tables[place] = table
        }
        return table[index]
    }

    /// The contents of a packed grain: a marker with its place on the disk and its packed length, and a zlib stream.
    private func unpack(_ sector: UInt32) throws(BlockError) -> [UInt8] {
        if let last = cache.withLock({ $0.grain }), last.sector == sector { return last.bytes }
        let start = UInt64(sector) * Self.sector
        guard start < file.end, file.end - start > 12 else { throw .corrupt("grain at sector \(sector)") }
        let count = UInt64(try file.bytes(at: start + 8, count: 4).littleEndian(UInt32.self, at: 0))
        guard count > 0, count <= file.end - start - 12, count <= 2 * grainSize + 64 else {
            throw .corrupt("grain at sector \(sector)")
        }
        let packed = try file.bytes(at: start + 12, count: Int(count))
        var bytes = [UInt8](repeating: 0, count: Int(grainSize))
        let isGood = bytes.withUnsafeMutableBytes { room in
            // Safe: both are arrays of at least a byte, given with their lengths.
            packed.withUnsafeBytes { davit_inflate($0.baseAddress!, $0.count, room.baseAddress!, room.count, false) }
        }
        guard isGood else { throw .corrupt("grain at sector \(sector)") }
        let result = bytes
        cache.withLock { $0.grain = (sector, result) }
        return result
    }
}
