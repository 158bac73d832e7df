import Glibc
import MachineModel

extension Qcow2Image {
    /// The image's refcounts; only called where it may be written.
    var counts: Qcow2Refcounts {
        get throws(BlockError) {
            guard let refcounts else { throw .readOnly }
            return refcounts
        }
    }

    func write(at offset: UInt64, from buffers: BlockBuffers) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        try flushIfCrowded()
        var done = 0
        while done < buffers.count {
            let at = offset + UInt64(done)
            let rest = buffers.slice(done, buffers.count - done)
            let place = try locked { () throws(BlockError) -> (host: UInt64, count: UInt64, ticket: UInt64)? in
                guard let (host, count) = try writableInPlace(at, upTo: UInt64(rest.count)) else { return nil }
                return (host, count, beginTransfer())
            }
            if let place {
                defer { endTransfer(place.ticket) }
                try file.write(at: place.host, from: rest.slice(0, Int(place.count)))
                done += Int(place.count)
            } else {
                done += try locked { () throws(BlockError) in try allocateAndWrite(at, rest) }
            }
        }
    }

    /// Where bytes from `offset` on lie in clusters that only this disk uses, and how many do so in one piece; nil if the first does
    /// not. With the lock held, as all here that is not public.
    func writableInPlace(_ offset: UInt64, upTo limit: UInt64) throws(BlockError) -> (host: UInt64, count: UInt64)? {
        guard let table = try l2Table(for: offset), l1[geometry.l1Index(offset)] & Qcow2Entry.copiedFlag != 0
        else { return nil }
        let tableEnd = (offset / geometry.bytesPerL2 + 1) * geometry.bytesPerL2
        let limit = min(limit, tableEnd - offset)
        var start: UInt64 = 0
        var count: UInt64 = 0
        while count < limit {
            let at = offset + count
            let inCluster = at & geometry.clusterMask
            let step = min(geometry.clusterSize - inCluster, limit - count)
            let entry = try entry(table, geometry.l2Index(at))
            let wanted = geometry.subclusters(inCluster..<inCluster + step)
            guard entry.isCopied, entry.host != 0, entry.allocated & wanted == wanted else { break }
            if count == 0 { start = entry.host + inCluster }
            guard entry.host + inCluster == start + count else { break }
            try checkIsData(entry.host)
            count += step
        }
        return count == 0 ? nil : (start, count)
    }

    /// Throws if an entry for data points at a table: a guest that writes there would write the image's structure. Or behind all that
    /// was ever written, as no entry does that belongs to data.
    private func checkIsData(_ host: UInt64) throws(BlockError) {
        guard host < file.end else { throw .corrupt("data at \(host) lie past the file's end") }
        if try counts.isMetadata(host >> geometry.clusterBits) { throw .corrupt("data at \(host) lie over a table") }
    }

    private func isOurs(_ entry: Qcow2Entry) throws(BlockError) -> Bool {
        guard entry.host != 0 else { return false }
        if entry.isCopied { return true }
        return try counts.count(of: entry.host >> geometry.clusterBits) == 1
    }

    /// The L2 table for `offset`, which may be changed.
    func writableTable(for offset: UInt64) throws(BlockError) -> Qcow2Table {
        let index = geometry.l1Index(offset)
        let old = try l2Table(for: offset)
        if let old {
            if l1[index] & Qcow2Entry.copiedFlag != 0 { return old }
            if try counts.count(of: old.offset >> geometry.clusterBits) == 1 {
                l1[index] |= Qcow2Entry.copiedFlag
                dirtyL1.insert(index)
                return old
            }
        }
        let cluster = try counts.allocate(upTo: 1).lowerBound
        let table = Qcow2Table(offset: cluster << geometry.clusterBits, size: Int(geometry.clusterSize))
        table.markAllDirty()
        if let old {
            // A snapshot keeps the old one.
            table.copyContents(of: old)
            try counts.forgetMetadata(old.offset >> geometry.clusterBits)
            free(old.offset, count: geometry.clusterSize)
        }
        try counts.claimMetadata(cluster)
        l2Tables.insert(table)
        l1[index] = table.offset | Qcow2Entry.copiedFlag
        dirtyL1.insert(index)
        return table
    }

    /// Drops one reference to each cluster that the range touches, when the file does not need them any more.
    func free(_ offset: UInt64, count: UInt64) {
        let clusters = offset >> geometry.clusterBits..<(offset + count + geometry.clusterMask) >> geometry.clusterBits
        if let last = pendingFrees.last, last.epoch == epoch, last.clusters.upperBound == clusters.lowerBound {
            pendingFrees[pendingFrees.count - 1] = PendingFree(
                clusters: last.clusters.lowerBound..<clusters.upperBound, epoch: epoch)
        } else {
            pendingFrees.append(PendingFree(clusters: clusters, epoch: epoch))
        }
    }

    /// Drops what an entry refers to.
    func free(_ entry: Qcow2Entry) {
        if let word = entry.compressed {
            let (offset, count) = geometry.compressedPlace(word)
            free(offset, count: UInt64(count))
        } else if entry.host != 0 {
            free(entry.host, count: geometry.clusterSize)
        }
    }

    /// Writes as much as lies in one stretch of clusters that must be allocated, or of which parts must be filled. Returns how many bytes.
    private func allocateAndWrite(_ offset: UInt64, _ buffers: BlockBuffers) throws(BlockError) -> Int {
        let table = try writableTable(for: offset)
        let index = geometry.l2Index(offset)
        let first = try entry(table, index)
        let inCluster = offset & geometry.clusterMask
        if try isOurs(first) {
            try checkIsData(first.host)
            let count = min(UInt64(buffers.count), geometry.clusterSize - inCluster)
            try fill(
                table, index, [first], offset, buffers.slice(0, Int(count)), host: first.host, isFresh: false,
                isMoved: false)
            return Int(count)
        }
        let clusters = (inCluster + UInt64(buffers.count) + geometry.clusterMask) >> geometry.clusterBits
        var old = [first]
        while old.count < clusters && index + old.count < geometry.l2Entries {
            let next = try entry(table, index + old.count)
            if try isOurs(next) { break }
            old.append(next)
        }
        let got = try counts.allocate(upTo: UInt64(old.count))
        old.removeLast(old.count - got.count)
        let host = got.lowerBound << geometry.clusterBits
        let count = min(UInt64(buffers.count), UInt64(got.count) * geometry.clusterSize - inCluster)
        do throws(BlockError) {
            // Behind the file's end there are zeros already.
            try fill(
                table, index, old, offset, buffers.slice(0, Int(count)), host: host, isFresh: host >= file.end,
                isMoved: true)
        } catch {
            try counts.undo(got)
            throw error
        }
        for entry in old { free(entry) }
        return Int(count)
    }

    /// Writes data to clusters at `host`, and around them, up to the bounds of what is allocated as one, what the disk has there; then
    /// lets the entries from `index` on, which were `old`, point at them.
    private func fill(
        _ table: Qcow2Table, _ index: Int, _ old: [Qcow2Entry], _ offset: UInt64, _ buffers: BlockBuffers, host: UInt64,
        isFresh: Bool, isMoved: Bool
    ) throws(BlockError) {
        let end = offset + UInt64(buffers.count)
        let base = offset - (offset & geometry.clusterMask)
        // A cluster that leaves its place takes all of it along.
        func unit(_ entry: Qcow2Entry) -> UInt64 {
            isMoved && (entry.host != 0 || entry.compressed != nil)
                ? geometry.clusterSize : 1 << geometry.subclusterBits
        }
        func hasData(_ entry: Qcow2Entry, _ at: UInt64) -> Bool {
            !isMoved && entry.allocated & (1 << geometry.subcluster(at)) != 0
        }
        var start = offset
        var stop = end
        if let entry = old.first, !hasData(entry, offset) { start = offset / unit(entry) * unit(entry) }
        if let entry = old.last, !hasData(entry, end - 1) { stop = (end + unit(entry) - 1) / unit(entry) * unit(entry) }
        try around(start..<offset, end..<stop, isFresh: isFresh, buffers) { (from, all) throws(BlockError) in
            try file.write(at: host + (from - base), from: all)
        }
        for (number, entry) in old.enumerated() {
            let cluster = base + UInt64(number) << geometry.clusterBits
            let low = max(start, cluster) - cluster
            let high = min(stop, cluster + geometry.clusterSize) - cluster
            var new = Qcow2Entry()
            new.host = host + UInt64(number) << geometry.clusterBits
            new.isCopied = true
            let written = geometry.subclusters(low..<high)
            new.allocated =
                isMoved && entry.compressed == nil && entry.host == 0 || !isMoved ? entry.allocated | written : written
            new.zero = entry.zero & ~new.allocated
            setEntry(table, index + number, new)
        }
    }

    /// Calls `write` once with the data and what the disk has before and behind them. Zeros are left out where the file is fresh.
    private func around(
        _ before: Range<UInt64>, _ behind: Range<UInt64>, isFresh: Bool, _ buffers: BlockBuffers,
        _ write: (UInt64, BlockBuffers) throws(BlockError) -> Void
    ) throws(BlockError) {
        let head = isFresh ? try withoutZeros(before) : before
        let tail = isFresh ? try withoutZeros(behind) : behind
        guard !head.isEmpty || !tail.isEmpty else { return try write(before.upperBound, buffers) }
        var failure: BlockError?
        // On the heap if it is long: a cluster has up to 2 MiB.
        withUnsafeTemporaryAllocation(byteCount: head.count + tail.count, alignment: 16) { room in
            do throws(BlockError) {
                let first = BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: room[..<head.count]))
                let last = BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: room[head.count...]))
                try readLocked(at: head.lowerBound, into: first)
                try readLocked(at: tail.lowerBound, into: last)
                let pieces = [first, buffers, last].flatMap(\.pieces).filter { $0.iov_len > 0 }
                try write(before.upperBound - UInt64(head.count), BlockBuffers(pieces))
            } catch { failure = error }
        }
        if let failure { throw failure }
    }

    /// The range, or an empty one at its end or beginning if all of it reads as zeros.
    private func withoutZeros(_ range: Range<UInt64>) throws(BlockError) -> Range<UInt64> {
        var at = range.lowerBound
        while at < range.upperBound {
            let (extent, count) = try map(at, upTo: range.upperBound - at)
            guard case .zeros = extent else { return range }
            at += count
        }
        return range.upperBound..<range.upperBound
    }
}
