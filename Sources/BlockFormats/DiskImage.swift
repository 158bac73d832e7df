import MachineModel

/// What is in an image file, as a run of bytes. Calls return when the work is done; any thread may call.
///
/// Ranges lie inside `size`: whoever takes them from outside has checked that.
protocol DiskImage: AnyObject, Sendable {
    /// In bytes.
    var size: UInt64 { get }
    var isReadOnly: Bool { get }
    /// The unit below which a write costs a read, in bytes: a power of two.
    var physicalBlockSize: Int { get }

    /// Whether bytes go past the host's page cache.
    var isDirect: Bool { get }

    func read(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError)
    /// How many bytes from `offset` on, at most `limit`, are known to be zeros without being read.
    func zeros(at offset: UInt64, upTo limit: UInt64) throws(BlockError) -> UInt64
    func write(at offset: UInt64, from buffers: BlockBuffers) throws(BlockError)
    func flush() throws(BlockError)
    func discard(at offset: UInt64, count: UInt64) throws(BlockError)
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError)
    /// Flushes, and ends the image's use.
    func close() throws(BlockError)

    /// Where those bytes lie in the host's file, if they lie there in one piece and moving them changes nothing else; nil if not. They
    /// stay there until the extent is handed back.
    func pin(at offset: UInt64, count: Int, forWriting: Bool) -> PinnedExtent?
    func unpin(_ extent: PinnedExtent)
}

/// Bytes of an image that are bytes of a file.
struct PinnedExtent: Sendable {
    let file: HostFile
    /// In the file, in bytes.
    let offset: UInt64
    /// What the image knows the extent by.
    let ticket: UInt64
}

/// An image that is only read.
protocol ReadOnlyImage: DiskImage {}

extension ReadOnlyImage {
    var isReadOnly: Bool { true }
    var isDirect: Bool { false }
    func zeros(at offset: UInt64, upTo limit: UInt64) throws(BlockError) -> UInt64 { 0 }
    var physicalBlockSize: Int { 4096 }
    func write(at offset: UInt64, from buffers: BlockBuffers) throws(BlockError) { throw .readOnly }
    func flush() throws(BlockError) {}
    func discard(at offset: UInt64, count: UInt64) throws(BlockError) { throw .readOnly }
    func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(BlockError) { throw .readOnly }
    func close() throws(BlockError) {}
    func pin(at offset: UInt64, count: Int, forWriting: Bool) -> PinnedExtent? { nil }
    func unpin(_ extent: PinnedExtent) {}
}

extension DiskImage {
    /// Reads what of the range is inside the image; the rest is zeros.
    func readPadded(at offset: UInt64, into buffers: BlockBuffers) throws(BlockError) {
        let inside = offset < size ? Int(min(size - offset, UInt64(buffers.count))) : 0
        if inside > 0 { try read(at: offset, into: buffers.slice(0, inside)) }
        if inside < buffers.count { buffers.slice(inside, buffers.count - inside).clear() }
    }
}
