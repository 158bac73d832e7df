import Glibc
import MachineModel

/// A file or block device whose bytes are the disk's.
final class RawImage: DiskImage {
    let size: UInt64
    private let file: HostFile

    var isReadOnly: Bool { !file.isWritable }
    var isDirect: Bool { file.cache == .none }
    let physicalBlockSize = 4096

    /// Sizes are in units of this many bytes.
    static let sectorSize: UInt64 = 512

    init(_ file: HostFile) throws(DiskError) {
        guard file.end > 0 else {
            throw DiskError(.truncated, file: file.path, "is empty", mend: "make a disk with 'truncate -s 10G FILE'")
        }
        guard file.end % Self.sectorSize == 0 else {
            throw DiskError(
                .malformed, file: file.path, "its size, \(file.end) bytes, is not a multiple of 512",
                mend: "round it up with 'truncate -s %512 \(file.path)', or state its format if it is not raw")
        }
        self.file = file
        size = file.end
    }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        try file.read(at: offset, into: buffers)
    }

    func zeros(at offset: UInt64, upTo limit: UInt64) throws(BlockError) -> UInt64 {
        file.hole(at: offset, upTo: limit)
    }

    func write(at offset: UInt64, from buffers: BlockBuffers) throws(BlockError) {
        guard file.isWritable else { throw .readOnly }
        try file.write(at: offset, from: buffers)
    }

    func flush() throws(BlockError) {
        if file.isWritable { try file.sync() }
    }

    func discard(at offset: UInt64, count: UInt64) throws(BlockError) {
        guard file.isWritable else { throw .readOnly }
        _ = file.punchHole(at: offset, count: count)
    }

    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) {
        guard file.isWritable else { throw .readOnly }
        try file.writeZeroes(at: offset, count: count, mayUnmap: mayUnmap)
    }

    func close() throws(BlockError) { try flush() }

    func pin(at offset: UInt64, count: Int, forWriting: Bool) -> PinnedExtent? {
        forWriting && isReadOnly ? nil : PinnedExtent(file: file, offset: offset, ticket: 0)
    }

    func unpin(_ extent: PinnedExtent) {}
}
