import Glibc

/// A request of a guest's, with room for the answer.
///
/// Unsafe: its bytes are guest RAM, which the guest changes at any time: what was copied once must be judged and obeyed as it was copied.
public protocol GuestMessage: Sendable {
    /// In bytes.
    var readableCount: Int { get }
    /// In bytes.
    var writableCount: Int { get }

    /// Copies readable bytes from `offset` on; how many there were.
    func copyReadable(from offset: Int, into buffer: UnsafeMutableRawBufferPointer) -> Int
    /// Copies bytes to the writable part, `offset` bytes in; how many had room.
    @discardableResult
    func copyWritable(at offset: Int, from buffer: UnsafeRawBufferPointer) -> Int
    /// Pieces of guest RAM with readable bytes, from `offset` on.
    func readablePieces(from offset: Int, count: Int) -> [iovec]
    /// Pieces of guest RAM with room, from `offset` on.
    func writablePieces(from offset: Int, count: Int) -> [iovec]
}

/// Files that a guest reaches by FUSE messages. Any thread may call.
public protocol FileServer: AnyObject, Sendable {
    /// Begins to answer, and does not wait. `completion` is called exactly once, on any thread, with the answer's length in bytes.
    func submit(_ message: any GuestMessage, completion: @escaping @Sendable (Int) -> Void)

    /// Forgets what a driver had open. No request may be under way.
    func endSession()

    /// Waits for what is under way, and lets the files go. Nothing may be submitted any more.
    func close()
}
