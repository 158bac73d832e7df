import CCompression
import MachineModel

extension Qcow2Image {
    /// Where a stretch of the disk is.
    enum Extent {
        case data(UInt64)
        case zeros
        case backing
        case compressed(word: UInt64)
    }

    /// The L2 table for `offset`; nil if there is none. With the lock held, as all here that is not public.
    func l2Table(for offset: UInt64) throws(BlockError) -> Qcow2Table? {
        let index = geometry.l1Index(offset)
        guard index < l1.count else { throw .outOfRange }
        let place = l1[index] & Qcow2Entry.offsetMask
        guard place != 0 else { return nil }
        if let table = l2Tables.find(place) { return table }
        guard place & geometry.clusterMask == 0, place < file.end else { throw .corrupt("L1 entry \(index)") }
        let table = try Qcow2Table(file, offset: place, size: Int(geometry.clusterSize))
        l2Tables.insert(table)
        return table
    }

    func entry(_ table: Qcow2Table, _ index: Int) throws(BlockError) -> Qcow2Entry {
        let word = geometry.isExtended ? table[index * 2] : table[index]
        guard let entry = geometry.decode(word, geometry.isExtended ? table[index * 2 + 1] : 0) else {
            throw .corrupt("L2 entry \(index) of the table at \(table.offset)")
        }
        return entry
    }

    func setEntry(_ table: Qcow2Table, _ index: Int, _ entry: Qcow2Entry) {
        let (word, bitmap) = geometry.encode(entry)
        if geometry.isExtended {
            table[index * 2] = word
            table[index * 2 + 1] = bitmap
        } else {
            table[index] = word
        }
    }

    /// What is at `offset`, and for how many bytes, at most `limit`, it goes on so.
    func map(_ offset: UInt64, upTo limit: UInt64) throws(BlockError) -> (extent: Extent, count: UInt64) {
        let tableEnd = (offset / geometry.bytesPerL2 + 1) * geometry.bytesPerL2
        let limit = min(limit, tableEnd - offset)
        let nothing: Extent = backing == nil ? .zeros : .backing
        guard let table = try l2Table(for: offset) else { return (nothing, limit) }
        var found: Extent?
        var count: UInt64 = 0
        while count < limit {
            let at = offset + count
            let entry = try entry(table, geometry.l2Index(at))
            let inCluster = at & geometry.clusterMask
            var step = geometry.clusterSize - inCluster
            let extent: Extent
            if let word = entry.compressed {
                extent = .compressed(word: word)
            } else {
                let bit: UInt32 = 1 << geometry.subcluster(at)
                if geometry.isExtended {
                    let size: UInt64 = 1 << geometry.subclusterBits
                    step = size - inCluster % size
                }
                extent =
                    entry.allocated & bit != 0
                    ? .data(entry.host + inCluster) : entry.zero & bit != 0 ? .zeros : nothing
            }
            switch (found, extent) {
            case (nil, _): found = extent
            case (.data(let start), .data(let here)) where here == start + count: break
            case (.zeros, .zeros), (.backing, .backing): break
            default: return (found.unsafelyUnwrapped, count)
            }
            count += step
            if case .compressed = extent { break }
        }
        return (found ?? nothing, min(count, limit))
    }

    func zeros(at offset: UInt64, upTo limit: UInt64) throws(BlockError) -> UInt64 {
        let (extent, count) = try locked { () throws(BlockError) in try map(offset, upTo: limit) }
        switch extent {
        case .zeros: return count
        case .backing:
            guard let backing, offset < backing.size else { return count }
            return try backing.zeros(at: offset, upTo: min(count, backing.size - offset))
        case .data, .compressed: return 0
        }
    }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        var done = 0
        while done < buffers.count {
            let at = offset + UInt64(done)
            let left = UInt64(buffers.count - done)
            let (extent, count, ticket) = try locked { () throws(BlockError) in
                let (extent, count) = try map(at, upTo: left)
                return (extent, count, beginTransfer())
            }
            defer { endTransfer(ticket) }
            try read(extent, at: at, into: buffers.slice(done, Int(count)))
            done += Int(count)
        }
    }

    /// The same with the lock held.
    func readLocked(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        var done = 0
        while done < buffers.count {
            let at = offset + UInt64(done)
            let (extent, count) = try map(at, upTo: UInt64(buffers.count - done))
            try read(extent, at: at, into: buffers.slice(done, Int(count)))
            done += Int(count)
        }
    }

    private func read(_ extent: Extent, at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        switch extent {
        case .data(let host): try file.read(at: host, into: buffers)
        case .zeros: buffers.clear()
        case .backing:
            guard let backing else { return buffers.clear() }
            try backing.readPadded(at: offset, into: buffers)
        case .compressed(let word):
            let start = Int(offset & geometry.clusterMask)
            let bytes = try unpack(word)
            bytes.withUnsafeBytes { cluster in
                buffers.fill(from: UnsafeRawBufferPointer(rebasing: cluster[start..<start + buffers.count]))
            }
        }
    }

    /// The contents of a compressed cluster.
    private func unpack(_ word: UInt64) throws(BlockError) -> [UInt8] {
        let last = unpacked.withLock { $0 }
        if last.word == word { return last.bytes }
        let (place, length) = geometry.compressedPlace(word)
        guard place < file.end else { throw .corrupt("compressed cluster at \(place)") }
        let packed = try file.bytes(at: place, count: Int(min(UInt64(length), file.end - place)))
        var bytes = [UInt8](repeating: 0, count: Int(geometry.clusterSize))
        let isGood = bytes.withUnsafeMutableBytes { room in
            packed.withUnsafeBytes { packed in
                // Safe: both are arrays of at least a byte, given with their lengths.
                header.isZstd
                    ? davit_zstd_unpack(packed.baseAddress!, packed.count, room.baseAddress!, room.count)
                    : davit_inflate(packed.baseAddress!, packed.count, room.baseAddress!, room.count, true)
            }
        }
        guard isGood else { throw .corrupt("compressed cluster at \(place)") }
        let result = bytes
        unpacked.withLock { $0 = (word, result) }
        return result
    }

    func pin(at offset: UInt64, count: Int, forWriting: Bool) -> PinnedExtent? {
        if forWriting && isReadOnly { return nil }
        return try? locked { () throws(BlockError) in
            // A table that is not in memory is read by somebody who may wait for it.
            let index = geometry.l1Index(offset)
            guard index < l1.count, l2Tables.find(l1[index] & Qcow2Entry.offsetMask) != nil else { return nil }
            let found: (host: UInt64, count: UInt64)?
            if forWriting {
                found = try writableInPlace(offset, upTo: UInt64(count))
            } else if case (.data(let host), let length) = try map(offset, upTo: UInt64(count)) {
                found = (host, length)
            } else {
                found = nil
            }
            guard let found, found.count == UInt64(count) else { return nil }
            return PinnedExtent(file: file, offset: found.host, ticket: beginTransfer())
        }
    }

    func unpin(_ extent: PinnedExtent) { endTransfer(extent.ticket) }
}
