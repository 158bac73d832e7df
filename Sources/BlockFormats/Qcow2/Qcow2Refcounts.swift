import MachineModel

/// Which clusters of an image are in use, and how often (qcow2.rst, "Host cluster management"). The image's lock guards it.
///
/// Blocks are changed in memory, and reach the file with `writeBlocks` at any time, or else when a flush orders them: before the table's
/// entries that point at them, and before all else that points at clusters which they count.
final class Qcow2Refcounts {
    private let file: HostFile
    private let clusterBits: UInt64
    private let order: UInt32
    /// Places of the blocks; 0 where there is none, and nothing in use either.
    private(set) var table: [UInt64]
    private(set) var tableOffset: UInt64
    /// Entries that the file does not have.
    private(set) var dirtyEntries: Set<Int> = []
    private var blocks: Qcow2TableCache
    /// No cluster below is free.
    private var firstFree: UInt64 = 0
    /// Clusters that hold tables: nothing else may be written to them.
    private(set) var metadata: Set<UInt64>

    private var clusterSize: UInt64 { 1 << clusterBits }
    /// Refcounts in a block, as a power of two.
    private var blockBits: UInt64 { clusterBits + 3 - UInt64(order) }
    /// What a count can be at most.
    var maximum: UInt64 { order == 6 ? .max : 1 << (1 << UInt64(order)) - 1 }
    private static let cacheSize = 16 << 20

    /// Reads the table; `metadata` are clusters of other tables.
    init(_ file: HostFile, _ header: Qcow2Header, metadata: Set<UInt64>) throws(DiskError) {
        self.file = file
        clusterBits = UInt64(header.clusterBits)
        order = header.refcountOrder
        tableOffset = header.refcountTableOffset
        let count = Int(header.refcountTableClusters) << Int(clusterBits)
        let bytes = try file.header(at: tableOffset, count: count, part: "the refcount table")
        table = []
        table.reserveCapacity(count / 8)
        self.metadata = metadata
        for cluster in 0..<UInt64(header.refcountTableClusters) {
            guard self.metadata.insert(tableOffset >> clusterBits + cluster).inserted else {
                throw file.malformed("its refcount table lies over another table")
            }
        }
        blocks = Qcow2TableCache(bytes: Self.cacheSize, tableSize: 1 << Int(clusterBits))
        for index in 0..<count / 8 {
            let offset = bytes.bigEndian(UInt64.self, at: index * 8)
            table.append(offset)
            if offset == 0 { continue }
            guard offset & (clusterSize - 1) == 0, offset <= Qcow2Header.maximumOffset else {
                throw file.malformed("its refcount block at offset \(offset) cannot be")
            }
            guard self.metadata.insert(offset >> clusterBits).inserted else {
                throw file.malformed("its refcount block at offset \(offset) lies over another table")
            }
        }
    }

    func isMetadata(_ cluster: UInt64) -> Bool { metadata.contains(cluster) }
    func claimMetadata(_ cluster: UInt64) { metadata.insert(cluster) }
    func forgetMetadata(_ cluster: UInt64) { metadata.remove(cluster) }

    private func block(_ index: Int) throws(BlockError) -> Qcow2Table? {
        guard index < table.count, table[index] != 0 else { return nil }
        if let block = blocks.find(table[index]) { return block }
        let block = try Qcow2Table(file, offset: table[index], size: 1 << Int(clusterBits))
        blocks.insert(block)
        return block
    }

    private func place(_ cluster: UInt64) -> (block: Int, index: Int) {
        (Int(cluster >> blockBits), Int(cluster & (1 << blockBits - 1)))
    }

    func count(of cluster: UInt64) throws(BlockError) -> UInt64 {
        let place = place(cluster)
        return try block(place.block)?.refcount(place.index, order: order) ?? 0
    }

    /// Drops one reference. Returns whether the cluster is free then.
    func release(_ cluster: UInt64) throws(BlockError) -> Bool {
        let place = place(cluster)
        guard let block = try block(place.block) else { return false }
        let count = block.refcount(place.index, order: order)
        guard count > 0 else { return false }
        block.setRefcount(place.index, order: order, count - 1)
        if count == 1 { firstFree = min(firstFree, cluster) }
        return count == 1
    }

    /// Corrects the count of a cluster that has one.
    func correct(_ cluster: UInt64, to count: UInt64) throws(BlockError) {
        let place = place(cluster)
        guard let block = try block(place.block) else { return }
        block.setRefcount(place.index, order: order, count)
        if count == 0 { firstFree = min(firstFree, cluster) }
    }

    /// Takes the first free cluster and those behind it that are free, too, at most `limit` (at least 1).
    func allocate(upTo limit: UInt64) throws(BlockError) -> Range<UInt64> {
        var first = firstFree
        while true {
            let place = place(first)
            guard let block = try block(place.block) else {
                try addBlock(place.block)
                continue
            }
            var index = place.index
            while index < 1 << blockBits && block.refcount(index, order: order) != 0 { index += 1 }
            let start = UInt64(place.block) << blockBits + UInt64(index)
            // So that the next search does not begin anew, even if this one fails below.
            firstFree = start
            first = start
            if index == 1 << blockBits { continue }
            var end = index
            while end < 1 << blockBits && UInt64(end - index) < limit && block.refcount(end, order: order) == 0 {
                end += 1
            }
            let range = start..<start + UInt64(end - index)
            for cluster in range where metadata.contains(cluster) { throw .corrupt("refcounts") }
            for number in index..<end { block.setRefcount(number, order: order, 1) }
            firstFree = range.upperBound
            return range
        }
    }

    /// Gives back what `allocate` took; nothing has ever referred to it.
    func undo(_ range: Range<UInt64>) throws(BlockError) {
        for cluster in range { _ = try release(cluster) }
    }

    /// Makes the block with that number. Nothing that it counts is in use, so it takes the first cluster of those.
    private func addBlock(_ index: Int) throws(BlockError) {
        let cluster = UInt64(index) << blockBits
        guard cluster <= UInt64(Int64.max) >> clusterBits else { throw .noSpace }
        if index >= table.count { return try grow() }
        guard metadata.insert(cluster).inserted else { throw .corrupt("refcounts") }
        let block = Qcow2Table(offset: cluster << clusterBits, size: 1 << Int(clusterBits))
        block.markAllDirty()
        block.setRefcount(0, order: order, 1)
        blocks.insert(block)
        table[index] = block.offset
        dirtyEntries.insert(index)
    }

    /// Clusters that a table has left, which whoever flushes has to release.
    var outgrown: [Range<UInt64>] = []

    /// Moves the table to a place behind all that it covers, half as long again. Durable when it returns.
    private func grow() throws(BlockError) {
        let plan = Qcow2RefcountPlan(
            counts: { _ in 0 }, from: UInt64(table.count) << blockBits, upTo: UInt64(table.count) << blockBits,
            clusterBits: clusterBits, order: order, minimumEntries: table.count + table.count / 2)
        guard UInt64(plan.tableClusters) << clusterBits <= Qcow2Header.maximumRefcountTableBytes else { throw .noSpace }
        for cluster in plan.clusters where metadata.contains(cluster) { throw .corrupt("refcounts") }
        // The new table points at all blocks, those that only memory has among them.
        try writeBlocks()
        try plan.write(to: file, keeping: table)
        try file.sync()
        try file.write(plan.headerField, at: Qcow2Header.Field.refcountTableOffset)
        try file.sync()
        let old = tableOffset >> clusterBits
        let oldClusters = old..<old + UInt64(table.count * 8) >> clusterBits
        for cluster in oldClusters { metadata.remove(cluster) }
        outgrown.append(oldClusters)
        metadata.formUnion(plan.clusters)
        table = plan.entries(keeping: table)
        tableOffset = plan.tableOffset
        dirtyEntries = []
    }

    /// Writes all blocks that the file does not have.
    func writeBlocks() throws(BlockError) {
        for block in blocks.dirtyTables { try block.write(to: file) }
    }

    /// The table's entries that the file does not have, with their places in it; clean then.
    func takeDirtyEntries() -> [(index: Int, place: UInt64, value: UInt64)] {
        defer { dirtyEntries = [] }
        return dirtyEntries.map { ($0, tableOffset + UInt64($0) * 8, table[$0]) }
    }

    func markDirty(entries: some Sequence<Int>) { dirtyEntries.formUnion(entries) }
    var isCrowded: Bool { blocks.isCrowded }
}

/// Refcount blocks and a table, laid out one behind the other, that count clusters and themselves.
struct Qcow2RefcountPlan {
    private let counts: (UInt64) -> UInt64
    private let place: UInt64
    private let clusterBits: UInt64
    private let order: UInt32
    private let firstBlock: Int
    private let blockCount: Int
    let tableClusters: Int

    private var clusterSize: Int { 1 << Int(clusterBits) }
    private var blockBits: UInt64 { clusterBits + 3 - UInt64(order) }

    /// Puts the structures at cluster `place` and behind. They count clusters from `first`, the beginning of a block, to `place` as
    /// `counts` says, and themselves once. The table has at least `minimumEntries`.
    init(
        counts: @escaping (UInt64) -> UInt64, from first: UInt64, upTo place: UInt64, clusterBits: UInt64,
        order: UInt32,
        minimumEntries: Int = 0
    ) {
        self.counts = counts
        self.place = place
        self.clusterBits = clusterBits
        self.order = order
        let blockBits = clusterBits + 3 - UInt64(order)
        firstBlock = Int(first >> blockBits)
        var blocks = 1
        var clusters = 1
        // More blocks may need a longer table, and that more blocks; each round adds, and the sum converges.
        while true {
            let entries = max(firstBlock + blocks, minimumEntries)
            clusters = (entries * 8 + (1 << Int(clusterBits)) - 1) >> Int(clusterBits)
            let end = place + UInt64(blocks + clusters)
            let needed = Int((end - first + (1 << blockBits - 1)) >> blockBits)
            if needed <= blocks { break }
            blocks = needed
        }
        blockCount = blocks
        tableClusters = clusters
    }

    /// The clusters of blocks and table.
    var clusters: Range<UInt64> { place..<place + UInt64(blockCount + tableClusters) }
    var tableOffset: UInt64 { (place + UInt64(blockCount)) << clusterBits }

    /// The table, with the entries of blocks that stay.
    func entries(keeping old: [UInt64]) -> [UInt64] {
        var entries = Array(old.prefix(firstBlock))
        entries += [UInt64](repeating: 0, count: firstBlock - entries.count)
        for block in 0..<blockCount { entries.append((place + UInt64(block)) << clusterBits) }
        return entries + [UInt64](repeating: 0, count: tableClusters * clusterSize / 8 - entries.count)
    }

    /// The table's place and length as the header has them.
    var headerField: [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(tableOffset)
        bytes.appendBigEndian(UInt32(tableClusters))
        return bytes
    }

    func write(to file: HostFile, keeping old: [UInt64]) throws(BlockError) {
        for number in 0..<blockCount {
            let block = Qcow2Table(offset: (place + UInt64(number)) << clusterBits, size: clusterSize)
            block.markAllDirty()
            let start = UInt64(firstBlock + number) << blockBits
            let stop = min(start + 1 << blockBits, clusters.upperBound)
            for cluster in start..<max(start, stop) {
                let count = clusters.contains(cluster) ? 1 : counts(cluster)
                if count != 0 { block.setRefcount(Int(cluster - start), order: order, count) }
            }
            try block.write(to: file)
        }
        var table: [UInt8] = []
        for entry in entries(keeping: old) { table.appendBigEndian(entry) }
        try file.write(table, at: tableOffset)
    }
}
