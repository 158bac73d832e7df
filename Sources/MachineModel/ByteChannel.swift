/// A two-way stream of bytes, such as the far end of a serial line. Any thread may call.
public protocol ByteChannel: AnyObject, Sendable {
    /// Hands bytes to the far end. Returns how many it took; the rest are dropped or offered again when `onWritable` is called.
    func write(_ bytes: UnsafeRawBufferPointer) -> Int
    /// Who is told of bytes that come in, on the channel's own thread. It returns how many it took; the rest is offered again after
    /// `resumeReading`.
    func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?)
    /// The receiver has room again.
    func resumeReading()
}
