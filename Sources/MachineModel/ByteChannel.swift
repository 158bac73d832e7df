/// A two-way stream of bytes, such as the far end of a serial line. Any thread may call.
///
/// Receiver and writable callback run on the channel's own threads, never from inside `write`, and may call `write` and
/// `resumeReading`. When they have been replaced no call of the former ones is under way any more.
public protocol ByteChannel: AnyObject, Sendable {
    /// Hands bytes to the far end; a full channel may wait a tenth of a second for a slow reader. Returns how many it took; after
    /// fewer than all it says when it has room again.
    func write(_ bytes: UnsafeRawBufferPointer) -> Int
    /// Who is told that a channel which has refused bytes will take some again.
    func onWritable(_ callback: (@Sendable () -> Void)?)
    /// Who is told of bytes that come in. It returns how many it took; the rest is offered again after `resumeReading`.
    func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?)
    /// Who is told whether anybody is at the far end: at once, and whenever that changes.
    func onConnection(_ callback: (@Sendable (_ isConnected: Bool) -> Void)?)
    /// The receiver has room again. May call the receiver before it returns.
    func resumeReading()
}

extension ByteChannel {
    /// As for a channel whose far end is always there.
    public func onConnection(_ callback: (@Sendable (_ isConnected: Bool) -> Void)?) { callback?(true) }
}
