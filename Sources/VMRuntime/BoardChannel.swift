import MachineModel
import Synchronization

/// A serial line as one board sees it. The line outlives the board: once detached, nothing of the old board's reaches it, however
/// late the board's last reference goes.
final class BoardChannel: ByteChannel {
    private let line: any ByteChannel
    private let isDetached = Atomic<Bool>(false)

    init(_ line: any ByteChannel) { self.line = line }

    func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        isDetached.load(ordering: .acquiring) ? bytes.count : line.write(bytes)
    }

    func onWritable(_ callback: (@Sendable () -> Void)?) {
        if !isDetached.load(ordering: .acquiring) { line.onWritable(callback) }
    }

    func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {
        if !isDetached.load(ordering: .acquiring) { line.onReceive(receiver) }
    }

    func onConnection(_ callback: (@Sendable (Bool) -> Void)?) {
        if !isDetached.load(ordering: .acquiring) { line.onConnection(callback) }
    }

    func resumeReading() {
        if !isDetached.load(ordering: .acquiring) { line.resumeReading() }
    }

    /// When it returns, no call from the line into the board is under way. To be called once the board's devices are all made.
    func detach() {
        isDetached.store(true, ordering: .releasing)
        line.onWritable(nil)
        line.onReceive(nil)
        line.onConnection(nil)
    }
}
