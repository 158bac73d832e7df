import MachineModel

/// What a flush has taken from memory and brings to the file.
private struct FlushBatch {
    var refcountEntries: [(index: Int, place: UInt64, value: UInt64)] = []
    var tables: [(table: Qcow2Table, range: Range<Int>, bytes: [UInt8])] = []
    var l1: [(index: Int, value: UInt64)] = []
    var frees: [Qcow2Image.PendingFree] = []
}

extension Qcow2Image {
    /// Makes durable what was written before.
    func flush() throws(BlockError) {
        guard !isReadOnly else { return }
        var failure: BlockError?
        flushLock.withLock { _ in
            do throws(BlockError) { try flushAlone() } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// Flushes if memory holds much that the file does not. Not with the lock held.
    func flushIfCrowded() throws(BlockError) {
        let isCrowded = lock.withLock { _ in
            l2Tables.isCrowded || pendingFrees.count >= Self.pendingFreeLimit || refcounts?.isCrowded == true
        }
        if isCrowded { try flush() }
    }

    private func flushAlone() throws(BlockError) {
        var batch = FlushBatch()
        do throws(BlockError) {
            try locked { () throws(BlockError) in
                try counts.writeBlocks()
                take(&batch)
            }
            if !batch.refcountEntries.isEmpty {
                // An entry must not point at a block that is not there.
                try file.sync()
                for entry in batch.refcountEntries { try write(entry.value, at: entry.place) }
            }
            if !batch.tables.isEmpty {
                // L2 entries must not point at data that are not there, or not counted.
                try file.sync()
                for (table, range, bytes) in batch.tables {
                    try file.write(bytes, at: table.offset + UInt64(range.lowerBound))
                }
            }
            if !batch.l1.isEmpty {
                try file.sync()
                for entry in batch.l1 { try write(entry.value, at: header.l1Offset + UInt64(entry.index) * 8) }
            }
            try file.sync()
        } catch {
            lock.withLock { _ in putBack(batch) }
            throw error
        }
        try locked { () throws(BlockError) in
            for table in batch.tables { table.table.isBeingWritten = false }
            try release(batch.frees)
            // No later than needed: until then the clusters are lost if the process ends.
            try counts.writeBlocks()
        }
    }

    private func write(_ value: UInt64, at place: UInt64) throws(BlockError) {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(value)
        try file.write(bytes, at: place)
    }

    /// With the lock held, as all that follows.
    private func take(_ batch: inout FlushBatch) {
        batch.refcountEntries = refcounts?.takeDirtyEntries() ?? []
        for table in l2Tables.dirtyTables {
            guard let (range, bytes) = table.takeDirty() else { continue }
            table.isBeingWritten = true
            batch.tables.append((table, range, bytes))
        }
        batch.l1 = dirtyL1.map { ($0, l1[$0]) }
        dirtyL1 = []
        for clusters in refcounts?.outgrown ?? [] { pendingFrees.append(PendingFree(clusters: clusters, epoch: epoch)) }
        refcounts?.outgrown = []
        batch.frees = pendingFrees
        pendingFrees = []
        epoch += 1
    }

    /// Nothing is lost by a flush that fails.
    private func putBack(_ batch: FlushBatch) {
        refcounts?.markDirty(entries: batch.refcountEntries.map(\.index))
        for (table, range, _) in batch.tables {
            table.markDirty(range)
            table.isBeingWritten = false
        }
        dirtyL1.formUnion(batch.l1.map(\.index))
        pendingFrees = batch.frees + pendingFrees
    }

    /// Drops references that the file does not have any more, unless a transfer may still be using the clusters.
    private func release(_ frees: [PendingFree]) throws(BlockError) {
        let oldest = transfers.keys.min() ?? .max
        for (number, free) in frees.enumerated() {
            guard oldest > free.epoch else {
                pendingFrees.append(free)
                continue
            }
            do throws(BlockError) { try release(free.clusters) } catch {
                // They stay counted, which costs space alone.
                pendingFrees += frees[(number + 1)...]
                throw error
            }
        }
    }

    private func release(_ clusters: Range<UInt64>) throws(BlockError) {
        var hole = clusters.lowerBound..<clusters.lowerBound
        func punch() {
            guard !hole.isEmpty else { return }
            _ = file.punchHole(
                at: hole.lowerBound << geometry.clusterBits, count: UInt64(hole.count) << geometry.clusterBits)
        }
        for cluster in clusters {
            if try counts.release(cluster) {
                if hole.isEmpty { hole = cluster..<cluster }
                hole = hole.lowerBound..<cluster + 1
            } else {
                punch()
                hole = cluster..<cluster
            }
        }
        punch()
    }
}
