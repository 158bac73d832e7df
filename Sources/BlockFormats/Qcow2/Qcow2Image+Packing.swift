import CCompression
import MachineModel

/// Where the next packed cluster goes: behind the last one, in the same cluster of the file if it fits there.
struct Qcow2PackingPlace {
    var next: UInt64 = 0
    var end: UInt64 = 0
}

extension Qcow2Image {
    /// Writes a whole cluster that the image has nothing for yet, packed if that makes it smaller (qcow2.rst, "Compressed Clusters
    /// Descriptor").
    func writePacked(at offset: UInt64, _ bytes: UnsafeRawBufferPointer, _ place: inout Qcow2PackingPlace)
        throws(BlockError)
    {
        var packed = [UInt8](repeating: 0, count: bytes.count)
        let size = packed.withUnsafeMutableBytes { room in
            // Safe: both are of the cluster's size. A stream that is no shorter is of no use.
            header.isZstd
                ? davit_zstd_pack(bytes.baseAddress!, bytes.count, room.baseAddress!, room.count - 1)
                : davit_deflate(bytes.baseAddress!, bytes.count, room.baseAddress!, room.count - 1)
        }
        guard size > 0 else {
            return try write(
                at: offset,
                from: BlockBuffers(UnsafeMutableRawBufferPointer(mutating: bytes)))
        }
        packed.removeLast(packed.count - size)
        try flushIfCrowded()
        try locked { () throws(BlockError) in
            let start = try reserve(UInt64(size), &place)
            try file.write(packed, at: start)
            let offsetBits = 62 - (geometry.clusterBits - 8)
            let sectors = (start + UInt64(size) - 1) / 512 - start / 512
            let table = try writableTable(for: offset)
            let index = geometry.l2Index(offset)
            let old = try entry(table, index)
            var new = Qcow2Entry()
            new.compressed = Qcow2Entry.compressedFlag | sectors << offsetBits | start
            setEntry(table, index, new)
            free(old)
        }
    }

    /// Takes `count` bytes, at most a cluster. Every cluster that they touch is counted once more.
    private func reserve(_ count: UInt64, _ place: inout Qcow2PackingPlace) throws(BlockError) -> UInt64 {
        if place.next < place.end {
            let cluster = place.next >> geometry.clusterBits
            let uses = try counts.count(of: cluster)
            // Narrow counts are soon full.
            if try uses < counts.maximum {
                let fits = count <= place.end - place.next
                var more: Range<UInt64>?
                if !fits { more = try counts.allocate(upTo: 1) }
                if fits || more?.lowerBound == place.end >> geometry.clusterBits {
                    try counts.correct(cluster, to: uses + 1)
                    let start = place.next
                    place.next += count
                    place.end = (place.next + geometry.clusterMask) & ~geometry.clusterMask
                    return start
                }
                if let more { return take(more.lowerBound, count, &place) }
            }
        }
        return take(try counts.allocate(upTo: 1).lowerBound, count, &place)
    }

    private func take(_ cluster: UInt64, _ count: UInt64, _ place: inout Qcow2PackingPlace) -> UInt64 {
        let start = cluster << geometry.clusterBits
        place.next = start + count
        place.end = start + geometry.clusterSize
        return start
    }

    /// Readers take packed data by the sector: lets the last one end in the file.
    func endPacking() throws(BlockError) {
        try file.extend(to: (file.end + geometry.clusterMask) & ~geometry.clusterMask)
    }
}
