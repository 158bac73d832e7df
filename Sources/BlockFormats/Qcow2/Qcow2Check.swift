import MachineModel

/// Counts what an image's tables refer to, and compares that with its refcounts.
public struct Qcow2Check: Sendable {
    /// Clusters that are counted less often than they are used, and entries that cannot be: data may be lost.
    public private(set) var corruptions = 0
    /// Clusters that are counted more often than they are used: space is lost.
    public private(set) var leaks = 0
    /// What was found, the first few of it.
    public private(set) var findings: [String] = []
    /// Clusters of data.
    public private(set) var dataClusters: UInt64 = 0

    /// Clusters that are counted too often, and how often they are used.
    private(set) var leaked: [(cluster: UInt64, uses: UInt64)] = []

    private let file: HostFile
    private let header: Qcow2Header
    private let geometry: Qcow2Geometry
    private var used: [UInt32]
    private var tablesLeft = Self.maximumTables

    private static let maximumFindings = 20
    /// More than any image that was not made to keep us busy.
    private static let maximumClusters: UInt64 = 1 << 26
    private static let maximumTables = 1 << 26

    private init(_ file: HostFile, _ header: Qcow2Header) throws(BlockError) {
        self.file = file
        self.header = header
        geometry = Qcow2Geometry(header)
        let clusters = (file.end + geometry.clusterMask) >> geometry.clusterBits
        guard clusters <= Self.maximumClusters else { throw .corrupt("a file of \(clusters) clusters") }
        used = [UInt32](repeating: 0, count: Int(clusters))
    }

    /// Looks through an image that nobody writes to meanwhile.
    static func run(_ file: HostFile, _ header: Qcow2Header) throws(BlockError) -> Qcow2Check {
        var check = try Qcow2Check(file, header)
        try check.countUses()
        try check.countRefcountStructures()
        try check.checkCopiedFlags()
        try check.compare()
        return check
    }

    static func check(_ file: HostFile, _ header: Qcow2Header) throws(DiskError) -> Qcow2Check {
        do throws(BlockError) { return try run(file, header) } catch {
            throw DiskError(
                .unreadable, file: file.path, "checking it failed (\(error))", mend: "check the disk that it is on")
        }
    }

    /// Gives the image new refcounts, behind its end, that say what its tables refer to. Returns the header as it is then.
    static func rebuildRefcounts(_ file: HostFile, _ header: Qcow2Header) throws(BlockError) -> Qcow2Header {
        var check = try Qcow2Check(file, header)
        try check.countUses()
        try check.checkCopiedFlags()
        // What does not fit in is an image that cannot be mended so.
        guard check.corruptions == 0 else { throw .corrupt(check.findings.first ?? "its tables") }
        let used = check.used
        let limit: UInt64 =
            header.refcountOrder >= 5 ? UInt64(UInt32.max) : 1 << (1 << UInt64(header.refcountOrder)) - 1
        guard used.allSatisfy({ UInt64($0) <= limit }) else { throw .corrupt("a cluster has too many users") }
        let plan = Qcow2RefcountPlan(
            counts: { UInt64(used[Int($0)]) }, from: 0, upTo: UInt64(used.count),
            clusterBits: UInt64(header.clusterBits), order: header.refcountOrder)
        try plan.write(to: file, keeping: [])
        try file.sync()
        try file.write(plan.headerField, at: Qcow2Header.Field.refcountTableOffset)
        try file.sync()
        var header = header
        header.refcountTableOffset = plan.tableOffset
        header.refcountTableClusters = UInt32(plan.tableClusters)
        return header
    }

    private mutating func complain(_ finding: String) {
        corruptions += 1
        note(finding)
    }

    private mutating func note(_ finding: String) {
        if findings.count < Self.maximumFindings { findings.append(finding) }
    }

    /// Counts a use of every cluster that the bytes touch.
    private mutating func use(_ offset: UInt64, _ count: UInt64, _ what: @autoclosure () -> String) {
        guard count > 0 else { return }
        let first = offset >> geometry.clusterBits
        let last = (offset + count - 1) >> geometry.clusterBits
        guard last < UInt64(used.count) else { return complain("\(what()) at \(offset) lies past the file's end") }
        for cluster in first...last { used[Int(cluster)] &+= 1 }
    }

    private mutating func countUses() throws(BlockError) {
        use(0, geometry.clusterSize, "header")
        try countL1(header.l1Offset, header.l1Size, isActive: true)
        guard header.snapshotCount > 0 else { return }
        let snapshots: [Qcow2Snapshot]
        let table: Range<UInt64>
        do throws(DiskError) {
            snapshots = try Qcow2Snapshot.all(file, header)
            table = try Qcow2Snapshot.tableClusters(file, header)
        } catch { throw .corrupt(error.problem) }
        use(table.lowerBound << geometry.clusterBits, UInt64(table.count) << geometry.clusterBits, "snapshot table")
        for snapshot in snapshots { try countL1(snapshot.l1Offset, snapshot.l1Size, isActive: false) }
    }

    private mutating func countL1(_ offset: UInt64, _ count: UInt32, isActive: Bool) throws(BlockError) {
        use(offset, UInt64(count) * 8, "L1 table")
        guard count > 0, offset <= file.end, UInt64(count) * 8 <= file.end - offset else { return }
        let bytes = try file.bytes(at: offset, count: Int(count) * 8)
        for index in 0..<Int(count) {
            let entry = bytes.bigEndian(UInt64.self, at: index * 8)
            let place = entry & Qcow2Entry.offsetMask
            guard place != 0 else { continue }
            tablesLeft -= 1
            guard tablesLeft > 0 else { throw .corrupt("too many L2 tables") }
            guard place & geometry.clusterMask == 0, place < file.end else {
                complain("L1 entry \(index) points at \(place)")
                continue
            }
            use(place, geometry.clusterSize, "L2 table")
            try countL2(try Qcow2Table(file, offset: place, size: Int(geometry.clusterSize)), isActive: isActive)
        }
    }

    private mutating func countL2(_ table: Qcow2Table, isActive: Bool) throws(BlockError) {
        for index in 0..<geometry.l2Entries {
            let word = geometry.isExtended ? table[index * 2] : table[index]
            let bitmap = geometry.isExtended ? table[index * 2 + 1] : 0
            if word == 0 && bitmap == 0 { continue }
            guard let entry = geometry.decode(word, bitmap) else {
                complain("L2 entry \(index) of the table at \(table.offset) cannot be")
                continue
            }
            if let word = entry.compressed {
                let (place, count) = geometry.compressedPlace(word)
                // Its length is in sectors, and may reach past the end.
                use(place, min(UInt64(count), max(file.end, place + 1) - place), "compressed cluster")
            } else if entry.host != 0 {
                use(entry.host, geometry.clusterSize, "data cluster")
            } else {
                continue
            }
            if isActive { dataClusters += 1 }
        }
    }

    /// A cluster that may be written in place has one user, and what its disk alone uses says so.
    private mutating func checkCopiedFlags() throws(BlockError) {
        let count = Int(header.l1Size)
        guard count > 0, header.l1Offset <= file.end, UInt64(count) * 8 <= file.end - header.l1Offset else { return }
        let l1 = try file.bytes(at: header.l1Offset, count: count * 8)
        for index in 0..<count {
            let word = l1.bigEndian(UInt64.self, at: index * 8)
            let place = word & Qcow2Entry.offsetMask
            guard place != 0, place & geometry.clusterMask == 0, place < file.end else { continue }
            checkFlag(place, word & Qcow2Entry.copiedFlag != 0, "L2 table")
            let table = try Qcow2Table(file, offset: place, size: Int(geometry.clusterSize))
            for number in 0..<geometry.l2Entries {
                let word = geometry.isExtended ? table[number * 2] : table[number]
                guard word & Qcow2Entry.compressedFlag == 0, word & Qcow2Entry.offsetMask != 0 else { continue }
                checkFlag(word & Qcow2Entry.offsetMask, word & Qcow2Entry.copiedFlag != 0, "data cluster")
            }
        }
    }

    private mutating func checkFlag(_ place: UInt64, _ isCopied: Bool, _ what: String) {
        let cluster = place >> geometry.clusterBits
        guard cluster < UInt64(used.count) else { return }
        let uses = used[Int(cluster)]
        if isCopied != (uses == 1) {
            complain("\(what) at \(place) has \(uses) users and is \(isCopied ? "" : "not ")marked as having one")
        }
    }

    private mutating func countRefcountStructures() throws(BlockError) {
        let tableBytes = UInt64(header.refcountTableClusters) << geometry.clusterBits
        use(header.refcountTableOffset, tableBytes, "refcount table")
        for (_, place) in try refcountBlocks() { use(place, geometry.clusterSize, "refcount block") }
    }

    private func refcountBlocks() throws(BlockError) -> [(Int, UInt64)] {
        let count = Int(header.refcountTableClusters) << Int(header.clusterBits)
        let bytes = try file.bytes(at: header.refcountTableOffset, count: count)
        return (0..<count / 8).compactMap { index in
            let place = bytes.bigEndian(UInt64.self, at: index * 8) & Qcow2Entry.offsetMask
            return place == 0 ? nil : (index, place)
        }
    }

    private mutating func compare() throws(BlockError) {
        let perBlock = 1 << Int(header.clusterBits + 3 - header.refcountOrder)
        var counted = Set<Int>()
        for (number, place) in try refcountBlocks() {
            guard place & geometry.clusterMask == 0, place < file.end else {
                complain("refcount block \(number) is at \(place)")
                continue
            }
            counted.insert(number)
            let block = try Qcow2Table(file, offset: place, size: Int(geometry.clusterSize))
            for index in 0..<perBlock {
                let count = block.refcount(index, order: header.refcountOrder)
                let cluster = number * perBlock + index
                compare(cluster, count: count, uses: cluster < used.count ? UInt64(used[cluster]) : 0)
            }
        }
        for cluster in 0..<used.count where used[cluster] != 0 && !counted.contains(cluster / perBlock) {
            compare(cluster, count: 0, uses: UInt64(used[cluster]))
        }
    }

    private mutating func compare(_ cluster: Int, count: UInt64, uses: UInt64) {
        if count < uses { complain("cluster \(cluster) is counted \(count) times and used \(uses) times") }
        if count > uses {
            leaks += 1
            leaked.append((UInt64(cluster), uses))
            note("cluster \(cluster) is counted \(count) times and used \(uses) times")
        }
    }
}
