import MachineModel
import Synchronization

/// A serial line as one board sees it. The line outlives the board: once detached, nothing of the old board's reaches it, however
/// late the board's last reference goes.
final class BoardChannel: ByteChannel {
    private let line: any ByteChannel
    /// Guards that nobody is connected after `detach`; held while the line is told, which does not call back.
    private let isDetached = Mutex(false)

    init(_ line: any ByteChannel) { self.line = line }

    func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        isDetached.withLock { $0 } ? bytes.count : line.write(bytes)
    }

    func onWritable(_ callback: (@Sendable () -> Void)?) {
        isDetached.withLock { if !$0 { line.onWritable(callback) } }
    }

    func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {
        isDetached.withLock { if !$0 { line.onReceive(receiver) } }
    }

    func resumeReading() {
        if !isDetached.withLock({ $0 }) { line.resumeReading() }
    }

    func detach() {
        isDetached.withLock { isDetached in
            isDetached = true
            line.onWritable(nil)
            line.onReceive(nil)
        }
    }
}
