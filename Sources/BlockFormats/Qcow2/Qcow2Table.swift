import MachineModel

/// A cluster of metadata in memory, as it lies in the file: an L2 table or a block of refcounts. The image's lock guards it.
final class Qcow2Table {
    /// Where it lies in the file, in bytes.
    let offset: UInt64
    /// One cluster, owned by this object.
    private let bytes: UnsafeMutableRawBufferPointer
    /// The bytes that the file does not have yet.
    private(set) var dirty: Range<Int>?
    /// A flush is writing a copy of it: the file may be behind though nothing is dirty.
    var isBeingWritten = false
    /// When it was last used, for the cache.
    var lastUse: UInt64 = 0

    /// A table of zeros that is in no file yet.
    init(offset: UInt64, size: Int) {
        self.offset = offset
        bytes = .allocate(byteCount: size, alignment: HostFile.directAlignment)
        _ = bytes.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Reads a table.
    convenience init(_ file: HostFile, offset: UInt64, size: Int) throws(BlockError) {
        self.init(offset: offset, size: size)
        try file.read(at: offset, into: BlockBuffers(bytes))
    }

    deinit { bytes.deallocate() }

    /// The entry with that number, of 64 bits.
    subscript(index: Int) -> UInt64 {
        get { UInt64(bigEndian: bytes.load(fromByteOffset: index * 8, as: UInt64.self)) }
        set {
            bytes.storeBytes(of: newValue.bigEndian, toByteOffset: index * 8, as: UInt64.self)
            markDirty(index * 8..<index * 8 + 8)
        }
    }

    /// The refcount with that number, of `1 << order` bits; narrow ones begin at a byte's lowest bit.
    func refcount(_ index: Int, order: UInt32) -> UInt64 {
        switch order {
        case 0...2:
            let bits = 1 << order
            let byte = bytes[index * bits / 8]
            return UInt64(byte >> UInt8(index * bits % 8) & (1 << UInt8(bits) - 1))
        case 3: return UInt64(bytes[index])
        case 4: return UInt64(UInt16(bigEndian: bytes.load(fromByteOffset: index * 2, as: UInt16.self)))
        case 5: return UInt64(UInt32(bigEndian: bytes.load(fromByteOffset: index * 4, as: UInt32.self)))
        default: return self[index]
        }
    }

    /// `value` fits into the width.
    func setRefcount(_ index: Int, order: UInt32, _ value: UInt64) {
        let bits = 1 << Int(order)
        let first = index * bits / 8
        switch order {
        case 0...2:
            let shift = UInt8(index * bits % 8)
            let mask: UInt8 = (1 << UInt8(bits) - 1) << shift
            bytes[first] = bytes[first] & ~mask | UInt8(truncatingIfNeeded: value) << shift
        case 3: bytes[first] = UInt8(truncatingIfNeeded: value)
        case 4: bytes.storeBytes(of: UInt16(truncatingIfNeeded: value).bigEndian, toByteOffset: first, as: UInt16.self)
        case 5: bytes.storeBytes(of: UInt32(truncatingIfNeeded: value).bigEndian, toByteOffset: first, as: UInt32.self)
        default: bytes.storeBytes(of: value.bigEndian, toByteOffset: first, as: UInt64.self)
        }
        markDirty(first..<first + max(bits / 8, 1))
    }

    func copyContents(of other: Qcow2Table) {
        bytes.copyMemory(from: UnsafeRawBufferPointer(other.bytes))
        markDirty(0..<bytes.count)
    }

    /// Notes that the file does not have those bytes.
    func markDirty(_ range: Range<Int>) {
        guard let dirty else { return self.dirty = range }
        self.dirty = min(dirty.lowerBound, range.lowerBound)..<max(dirty.upperBound, range.upperBound)
    }

    func markAllDirty() { markDirty(0..<bytes.count) }

    /// A copy of what the file does not have, widened to whole sectors; clean then.
    func takeDirty() -> (range: Range<Int>, bytes: [UInt8])? {
        guard let dirty else { return nil }
        self.dirty = nil
        let range = dirty.lowerBound / 512 * 512..<(dirty.upperBound + 511) / 512 * 512
        return (range, Array(bytes[range]))
    }

    /// Writes what the file does not have.
    func write(to file: HostFile) throws(BlockError) {
        guard let dirty else { return }
        try file.write(
            at: offset + UInt64(dirty.lowerBound),
            from: BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: bytes[dirty])))
        self.dirty = nil
    }
}

/// Tables by their place in the file. The least lately used go first, but only those that the file has, too.
struct Qcow2TableCache {
    private var tables: [UInt64: Qcow2Table] = [:]
    private var uses: UInt64 = 0
    private let limit: Int

    /// Keeps about `bytes` of tables of `tableSize` bytes.
    init(bytes: Int, tableSize: Int) { limit = max(bytes / tableSize, 4) }

    var dirtyTables: [Qcow2Table] { tables.values.filter { $0.dirty != nil } }
    /// So many tables are dirty that it is time to flush.
    var isCrowded: Bool { tables.count >= 2 * limit }

    mutating func find(_ offset: UInt64) -> Qcow2Table? {
        guard let table = tables[offset] else { return nil }
        uses += 1
        table.lastUse = uses
        return table
    }

    mutating func insert(_ table: Qcow2Table) {
        if tables.count >= limit {
            let clean = tables.values.filter { $0.dirty == nil && !$0.isBeingWritten }
            // A quarter at once, so that it is rarely looked for.
            for old in clean.sorted(by: { $0.lastUse < $1.lastUse }).prefix(max(limit / 4, 1)) {
                tables[old.offset] = nil
            }
        }
        uses += 1
        table.lastUse = uses
        tables[table.offset] = table
    }

    mutating func remove(_ offset: UInt64) { tables[offset] = nil }
}
