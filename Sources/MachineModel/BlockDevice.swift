import Glibc

/// A disk as a guest's controller sees it, whatever format or file is behind it. Any thread may call.
public protocol BlockDevice: AnyObject, Sendable {
    /// In bytes; a multiple of `blockSize`.
    var size: UInt64 { get }
    /// The smallest unit that the guest may address, in bytes: a power of two, at least 512.
    var blockSize: Int { get }
    /// The unit below which a write costs a read, in bytes: a power of two, at least `blockSize`.
    var physicalBlockSize: Int { get }
    /// Writes, discards and write-zeroes then fail with `.readOnly`.
    var isReadOnly: Bool { get }

    /// Begins requests, in no promised order among themselves or towards earlier ones; it does not wait for them. Each request's
    /// completion is called exactly once, on any thread, perhaps before this returns.
    func submit(_ requests: [BlockRequest])

    /// Waits for what was submitted, brings it to stable storage as the cache mode has it, and lets the files go. Requests that come
    /// later fail.
    func close()
}

/// One thing to do to a disk.
public struct BlockRequest: Sendable {
    public enum Operation: Sendable {
        /// Fills the buffers from `offset` (bytes) on.
        case read(offset: UInt64, into: BlockBuffers)
        /// Writes the buffers from `offset` (bytes) on. Durable only after a later flush.
        case write(offset: UInt64, from: BlockBuffers)
        /// Brings every write that has completed before to stable storage.
        case flush
        /// The contents are of no use any more; they may read as anything until they are written. A disk that cannot make use of that
        /// succeeds and does nothing.
        case discard(offset: UInt64, count: UInt64)
        /// The bytes read as zeros afterwards; with `mayUnmap` the space for them may be given back.
        case writeZeroes(offset: UInt64, count: UInt64, mayUnmap: Bool)
    }

    public let operation: Operation
    public let completion: @Sendable (Result<Void, BlockError>) -> Void

    public init(_ operation: Operation, completion: @escaping @Sendable (Result<Void, BlockError>) -> Void) {
        self.operation = operation
        self.completion = completion
    }
}

/// The memory that a read fills or a write is taken from, in order.
///
/// Unsafe: whoever makes it keeps the memory in place until the request has completed. Its contents may be guest RAM, which the guest
/// changes at any time: what has been read from it must not be read again after it was judged.
public struct BlockBuffers: @unchecked Sendable {
    public let pieces: [iovec]
    /// Of all pieces together, in bytes.
    public let count: Int

    /// Pieces of no bytes are allowed. All together have less than 2 GiB.
    public init(_ pieces: [iovec]) {
        self.pieces = pieces
        count = pieces.reduce(0) { $0 + $1.iov_len }
    }
}

/// Why a request failed. The disk goes on.
public enum BlockError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The range reaches past the end of the disk.
    case outOfRange
    case readOnly
    /// The host's file system is full, or a quota is used up.
    case noSpace
    /// The image contradicts itself; which part does.
    case corrupt(String)
    /// The file is shorter than it was when it was opened.
    case truncated
    /// The host's error number.
    case host(code: Int32)
    /// The disk has been closed.
    case closed

    public var description: String {
        switch self {
        case .outOfRange: "past the end of the disk"
        case .readOnly: "the disk is read-only"
        case .noSpace: "no space left on the host"
        case .corrupt(let part): "the image is damaged: \(part)"
        case .truncated: "the file has become shorter"
        case .host(let code): String(cString: strerror(code))
        case .closed: "the disk is closed"
        }
    }
}
