import MachineModel

/// A disk in Hyper-V's format, to be read ([MS-VHDX], version 1). A log that was not carried out when the machine was last stopped is
/// carried out in memory.
final class VHDXImage: ReadOnlyImage {
    let size: UInt64
    private let file: VHDXFile
    private let blockSize: UInt64
    /// Payload blocks between two sector bitmaps in the table.
    private let chunkRatio: UInt64
    private let table: [UInt64]

    private enum State {
        static let partlyPresent: UInt64 = 7
        static let fullyPresent: UInt64 = 6
        static let mask: UInt64 = 7
        static let offsetMask: UInt64 = ~0xF_FFFF
    }

    private static let maximumSize: UInt64 = 64 << 40

    init(_ host: HostFile) throws(DiskError) {
        file = try VHDXFile(host)
        let regions = try VHDXRegions(file)
        let metadata = try VHDXMetadata(file, regions.metadata)
        guard !metadata.hasParent else {
            throw DiskError(
                .unsupported, file: host.path, "holds only what differs from another disk",
                mend: "merge them in Hyper-V first")
        }
        size = metadata.size
        blockSize = UInt64(metadata.blockSize)
        guard size > 0, size % 512 == 0, size <= Self.maximumSize else {
            throw host.malformed("a disk of \(size) bytes cannot be")
        }
        chunkRatio = (1 << 23) * UInt64(metadata.sectorSize) / blockSize
        let blocks = (size - 1) / blockSize + 1
        let entries = blocks + (blocks - 1) / chunkRatio
        guard entries * 8 <= regions.table.count else { throw host.malformed("its block table is too short") }
        let bytes = try file.header(at: regions.table.offset, count: Int(entries) * 8, part: "the block table")
        table = (0..<Int(entries)).map { bytes.littleEndian(UInt64.self, at: $0 * 8) }
    }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        var done = 0
        while done < buffers.count {
            let at = offset + UInt64(done)
            let block = at / blockSize
            let inBlock = at % blockSize
            let piece = buffers.slice(done, Int(min(blockSize - inBlock, UInt64(buffers.count - done))))
            let entry = table[Int(block + block / chunkRatio)]
            switch entry & State.mask {
            case State.fullyPresent:
                let start = entry & State.offsetMask
                guard start < file.end else { throw .corrupt("block \(block) at \(start)") }
                try file.read(at: start + inBlock, into: piece)
            case State.partlyPresent: throw .corrupt("block \(block) belongs to a differencing disk")
            default: piece.clear()
            }
            done += piece.count
        }
    }
}
