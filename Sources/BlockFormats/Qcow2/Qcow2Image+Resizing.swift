import MachineModel

extension Qcow2Image {
    /// Makes the disk in an image larger; nobody else uses the image meanwhile. Returns when it is durable.
    func grow(to newSize: UInt64) throws(DiskError) {
        var new = header
        new.size = newSize
        guard newSize >= header.size, newSize % 512 == 0, newSize <= UInt64(Int64.max),
            new.neededL1Entries * 8 <= Qcow2Header.maximumL1Bytes
        else {
            throw DiskError(
                .badRequest, file: file.path, "a disk of \(newSize) bytes cannot be", mend: "give another size")
        }
        do throws(BlockError) {
            if new.neededL1Entries > UInt64(header.l1Size) { try moveL1(entries: new.neededL1Entries) }
            var bytes: [UInt8] = []
            bytes.appendBigEndian(newSize)
            try file.write(bytes, at: Qcow2Header.Field.size)
            try file.sync()
        } catch {
            throw DiskError(
                .unreadable, file: file.path, "making it larger failed (\(error))", mend: "make room and try again")
        }
    }

    /// Writes a longer L1 table to another place. This object still knows the old one, and must not be written through.
    private func moveL1(entries: UInt64) throws(BlockError) {
        let old = header.l1Offset..<header.l1Offset + UInt64(header.l1Size) * 8
        let clusters = (entries * 8 + geometry.clusterMask) >> geometry.clusterBits
        let place = try locked { () throws(BlockError) in
            // They must be in one piece: behind whatever is there.
            var range = try counts.allocate(upTo: clusters)
            while UInt64(range.count) < clusters {
                let more = try counts.allocate(upTo: clusters - UInt64(range.count))
                if more.lowerBound == range.upperBound {
                    range = range.lowerBound..<more.upperBound
                } else {
                    free(range.lowerBound << geometry.clusterBits, count: UInt64(range.count) << geometry.clusterBits)
                    range = more
                }
            }
            return range.lowerBound << geometry.clusterBits
        }
        try flush()
        var table: [UInt8] = []
        for entry in l1 { table.appendBigEndian(entry) }
        table += [UInt8](repeating: 0, count: Int(clusters << geometry.clusterBits) - table.count)
        try file.write(table, at: place)
        try file.sync()
        var field: [UInt8] = []
        field.appendBigEndian(UInt32(entries))
        field.appendBigEndian(place)
        try file.write(field, at: Qcow2Header.Field.l1Size)
        try file.sync()
        // The old one is of no use any more.
        lock.withLock { _ in if !old.isEmpty { free(old.lowerBound, count: UInt64(old.count)) } }
    }
}
