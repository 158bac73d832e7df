import MachineModel

extension Qcow2Image {
    func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        // Without a flag for zeros what is underneath would come to light.
        guard backing == nil || geometry.hasZeroFlag else { return }
        let whole = wholeClusters(offset, count)
        try forEachCluster(in: whole) { (at) throws(BlockError) in
            guard let table = try l2Table(for: at) else { return }
            let entry = try entry(table, geometry.l2Index(at))
            if entry.host == 0 && entry.compressed == nil { return }
            try clear(at, keepsSpace: false)
        }
    }

    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        guard !isReadOnly else { throw .readOnly }
        let whole = wholeClusters(offset, count)
        let end = offset + count
        guard !whole.isEmpty else { return try writeZeroData(offset..<end) }
        try writeZeroData(offset..<whole.lowerBound)
        if geometry.hasZeroFlag || backing == nil && mayUnmap {
            try forEachCluster(in: whole) { (at) throws(BlockError) in
                if case (.zeros, geometry.clusterSize) = try map(at, upTo: geometry.clusterSize) { return }
                try clear(at, keepsSpace: !mayUnmap)
            }
        } else {
            try writeZeroData(whole)
        }
        try writeZeroData(whole.upperBound..<end)
    }

    /// The clusters that lie in the range as a whole; the disk's last one counts as whole.
    private func wholeClusters(_ offset: UInt64, _ count: UInt64) -> Range<UInt64> {
        let start = (offset + geometry.clusterMask) & ~geometry.clusterMask
        let end = offset + count == size ? size : (offset + count) & ~geometry.clusterMask
        return start < end ? start..<end : offset..<offset
    }

    private func forEachCluster(
        in range: Range<UInt64>, _ body: (UInt64) throws(BlockError) -> Void
    ) throws(BlockError) {
        var at = range.lowerBound
        while at < range.upperBound {
            try flushIfCrowded()
            // One L2 table at a time, so that others get the lock in between.
            let end = min((at / geometry.bytesPerL2 + 1) * geometry.bytesPerL2, range.upperBound)
            try locked { () throws(BlockError) in
                while at < end {
                    try body(at)
                    at += geometry.clusterSize
                }
            }
        }
    }

    /// Lets a cluster read as zeros, or, without a flag for that, as nothing. With the lock held.
    private func clear(_ offset: UInt64, keepsSpace: Bool) throws(BlockError) {
        let table = try writableTable(for: offset)
        let index = geometry.l2Index(offset)
        let old = try entry(table, index)
        var new = Qcow2Entry()
        if geometry.hasZeroFlag { new.zero = geometry.allSubclusters }
        if keepsSpace && old.isCopied {
            new.host = old.host
            new.isCopied = true
        } else {
            free(old)
        }
        setEntry(table, index, new)
    }

    private func writeZeroData(_ range: Range<UInt64>) throws(BlockError) {
        var at = range.lowerBound
        let zeros = UnsafeMutableRawBufferPointer.allocate(
            byteCount: Int(min(geometry.clusterSize, UInt64(range.count))), alignment: HostFile.directAlignment)
        defer { zeros.deallocate() }
        _ = zeros.initializeMemory(as: UInt8.self, repeating: 0)
        while at < range.upperBound {
            // What is zero already need not be written, up to its end.
            let (isZero, count) = try locked { () throws(BlockError) in
                let (extent, count) = try map(at, upTo: range.upperBound - at)
                if case .zeros = extent { return (true, count) }
                return (false, count)
            }
            let size = isZero ? count : min(count, UInt64(zeros.count))
            if !isZero {
                try write(at: at, from: BlockBuffers(UnsafeMutableRawBufferPointer(rebasing: zeros[..<Int(size)])))
            }
            at += size
        }
    }
}
