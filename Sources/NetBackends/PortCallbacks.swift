import MachineModel
import Synchronization

/// Who a port calls. While a call is under way the caller holds the lock, so that whoever replaces a callback waits for its end.
final class PortCallbacks: Sendable {
    typealias Receiver = @Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool

    /// A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
    private struct FrameCallback: Sendable {
        var call: Receiver?
    }

    private struct PlainCallback: Sendable {
        var call: (@Sendable () -> Void)?
    }

    /// Each guards one callback, and is held while it runs.
    private let receiver = Mutex(FrameCallback())
    private let writable = Mutex(PlainCallback())
    private let linkChange = Mutex(PlainCallback())

    func setReceiver(_ callback: Receiver?) { receiver.withLock { $0.call = callback } }
    func setWritable(_ callback: (@Sendable () -> Void)?) { writable.withLock { $0.call = callback } }
    func setLinkChange(_ callback: (@Sendable () -> Void)?) { linkChange.withLock { $0.call = callback } }

    /// Offers a frame. With nobody there it is lost: true.
    func receive(_ header: PacketHeader, _ frame: UnsafeRawBufferPointer) -> Bool {
        receiver.withLock { $0.call?(header, frame) ?? true }
    }

    func tellWritable() { writable.withLock { $0.call?() } }
    func tellLinkChange() { linkChange.withLock { $0.call?() } }
}
