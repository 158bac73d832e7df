import Glibc
import MachineModel
import Synchronization

/// A disk in a qcow2 image, versions 2 and 3 (docs/interop/qcow2.rst of QEMU).
///
/// What is written to clusters that the image has for itself goes to the file at once. Changes of tables stay in memory until a flush
/// writes them in an order in which nothing ever points at what is not there: data and refcounts, then L2 tables, then the L1 table.
/// So whenever the process or the host ends, the file is a good image that holds at least what the last flush held. Clusters that were
/// being allocated then may stay counted; the image is marked as dirty while it is written, so that the next writer finds them.
final class Qcow2Image: DiskImage, @unchecked Sendable {
    let file: HostFile
    let geometry: Qcow2Geometry
    let header: Qcow2Header
    /// What is read where the image has nothing.
    let backing: (any DiskImage)?
    let size: UInt64
    let isReadOnly: Bool

    /// Guards all that follows: L1, the cache of L2 tables, refcounts, and which clusters are in use by whom.
    let lock = Mutex(())
    var l1: [UInt64]
    var dirtyL1: Set<Int> = []
    var l2Tables: Qcow2TableCache
    /// Nil if the image is only read.
    var refcounts: Qcow2Refcounts?
    /// References that will be dropped when the file holds nothing that needs them.
    var pendingFrees: [PendingFree] = []
    /// Counts flushes; transfers begin in one.
    var epoch: UInt64 = 0
    /// Transfers under way, by the epoch in which they began.
    var transfers: [UInt64: Int] = [:]

    /// Held during a flush, so that there is one at a time. Taken before `lock`.
    let flushLock = Mutex(())
    /// The compressed cluster that was read last. Guarded by itself.
    let unpacked = Mutex<(word: UInt64, bytes: [UInt8])>((0, []))

    struct PendingFree {
        let clusters: Range<UInt64>
        let epoch: UInt64
    }

    private static let l2CacheSize = 32 << 20
    /// So many pending frees ask for a flush.
    static let pendingFreeLimit = 8192

    var isDirect: Bool { file.cache == .none }
    var physicalBlockSize: Int { min(Int(geometry.clusterSize), 4096) }

    /// Opens what `file` holds. `snapshot` names one to read instead of the disk's present state.
    init(_ file: HostFile, _ header: Qcow2Header, backing: (any DiskImage)?, snapshot: String? = nil) throws(DiskError)
    {
        var header = header
        if let snapshot {
            guard !file.isWritable else {
                throw DiskError(
                    .badRequest, file: file.path, "a snapshot cannot be written to", mend: "add readonly=on")
            }
            let found = try Qcow2Snapshot.find(snapshot, file, header)
            header.l1Offset = found.l1Offset
            header.l1Size = found.l1Size
            header.size = found.diskSize ?? header.size
            guard header.neededL1Entries <= UInt64(header.l1Size) else {
                throw file.malformed("the L1 table of snapshot '\(snapshot)' is too short")
            }
        }
        geometry = Qcow2Geometry(header)
        self.file = file
        self.backing = backing
        isReadOnly = !file.isWritable
        // Guests count in sectors.
        size = header.size / 512 * 512
        guard size > 0 else { throw file.malformed("its disk has no sectors") }
        l2Tables = Qcow2TableCache(bytes: Self.l2CacheSize, tableSize: 1 << Int(header.clusterBits))
        l1 = try Self.readL1(file, header.l1Offset, header.l1Size)
        guard file.isWritable else {
            self.header = header
            return
        }
        guard header.incompatible & Qcow2Header.Incompatible.corrupt == 0 else {
            throw file.malformed("is marked as corrupt")
        }
        let metadata = try Self.placesOfTables(file, header, l1)
        let refcounts: Qcow2Refcounts
        (self.header, refcounts) = try Self.makeReadyToWrite(file, header, metadata)
        self.refcounts = refcounts
    }

    /// The clusters of all tables but the refcounts', none over another.
    private static func placesOfTables(
        _ file: HostFile, _ header: Qcow2Header, _ l1: [UInt64]
    ) throws(DiskError) -> Set<UInt64> {
        var metadata: Set<UInt64> = [0]
        let bits = UInt64(header.clusterBits)
        let end = header.l1Offset + UInt64(header.l1Size) * 8
        for cluster in header.l1Offset >> bits..<(end + header.clusterSize - 1) >> bits { metadata.insert(cluster) }
        for cluster in try Qcow2Snapshot.tableClusters(file, header) { metadata.insert(cluster) }
        for (index, entry) in l1.enumerated() where entry & Qcow2Entry.offsetMask != 0 {
            let offset = entry & Qcow2Entry.offsetMask
            guard offset & (header.clusterSize - 1) == 0 else {
                throw file.malformed("L2 table \(index) is not aligned")
            }
            guard metadata.insert(offset >> bits).inserted else {
                throw file.malformed("L2 table \(index) lies over another table")
            }
        }
        return metadata
    }

    static func readL1(_ file: HostFile, _ offset: UInt64, _ count: UInt32) throws(DiskError) -> [UInt64] {
        guard count > 0 else { return [] }
        let bytes = try file.header(at: offset, count: Int(count) * 8, part: "the L1 table")
        return (0..<Int(count)).map { bytes.bigEndian(UInt64.self, at: $0 * 8) }
    }

    /// Brings header and refcounts into the state that they must have while somebody writes to the image: right, if an earlier writer
    /// did not come to its end, and marked for the next one.
    private static func makeReadyToWrite(
        _ file: HostFile, _ header: Qcow2Header, _ metadata: Set<UInt64>
    ) throws(DiskError) -> (Qcow2Header, Qcow2Refcounts) {
        var header = header
        do throws(BlockError) {
            var leaked: [(cluster: UInt64, uses: UInt64)] = []
            if header.incompatible & Qcow2Header.Incompatible.dirty != 0 {
                let check = try Qcow2Check.run(file, header)
                if check.corruptions > 0 {
                    header = try Qcow2Check.rebuildRefcounts(file, header)
                } else {
                    leaked = check.leaked
                }
            }
            let refcounts: Qcow2Refcounts
            do throws(DiskError) { refcounts = try Qcow2Refcounts(file, header, metadata: metadata) } catch {
                throw .corrupt(error.problem)
            }
            for (cluster, uses) in leaked { try refcounts.correct(cluster, to: uses) }
            if header.autoclear != 0 {
                // Whoever set those flags asks that writers which do not know them take them away.
                try file.write([UInt8](repeating: 0, count: 8), at: Qcow2Header.Field.autoclear)
                header.autoclear = 0
            }
            try markDirty(true, file, header)
            return (header, refcounts)
        } catch {
            if case .corrupt(let part) = error { throw file.malformed(part) }
            throw DiskError(
                .unreadable, file: file.path, "making it ready to be written failed (\(error))",
                mend: "check the disk that it is on")
        }
    }

    /// Says in the file whether refcounts have to be looked through before the next use, as after a sudden end. Version 2 cannot say it.
    static func markDirty(_ isDirty: Bool, _ file: HostFile, _ header: Qcow2Header) throws(BlockError) {
        guard header.version >= 3 else { return }
        var flags: [UInt8] = []
        let others = header.incompatible & ~Qcow2Header.Incompatible.dirty
        flags.appendBigEndian(others | (isDirty ? Qcow2Header.Incompatible.dirty : 0))
        try file.write(flags, at: Qcow2Header.Field.incompatible)
        try file.sync()
    }

    deinit { try? close() }

    func close() throws(BlockError) {
        guard refcounts != nil else { return }
        try flush()
        // What the first one released.
        try flush()
        try Self.markDirty(false, file, header)
    }

    /// Runs `body` with the lock held.
    func locked<Value>(_ body: () throws(BlockError) -> Value) throws(BlockError) -> Value {
        var result: Result<Value, BlockError>?
        lock.withLock { _ in
            do throws(BlockError) { result = .success(try body()) } catch { result = .failure(error) }
        }
        return try result.unsafelyUnwrapped.get()
    }

    /// Notes a transfer to or from data clusters, which stay where they are until `endTransfer`. With the lock held.
    func beginTransfer() -> UInt64 {
        transfers[epoch, default: 0] += 1
        return epoch
    }

    func endTransfer(_ ticket: UInt64) {
        lock.withLock { _ in
            if let count = transfers[ticket] { transfers[ticket] = count == 1 ? nil : count - 1 }
        }
    }
}
