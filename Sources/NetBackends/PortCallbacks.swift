import MachineModel
import Synchronization

/// Who a port calls. While a call is under way the caller holds the lock, so that whoever replaces a callback waits for its end.
final class PortCallbacks: Sendable {
    typealias Receiver = @Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool

    /// Each guards one callback, and is held while it runs.
    private let receiver = Mutex<Receiver?>(nil)
    private let writable = Mutex<(@Sendable () -> Void)?>(nil)
    private let linkChange = Mutex<(@Sendable () -> Void)?>(nil)

    func setReceiver(_ callback: Receiver?) { receiver.withLock { $0 = callback } }
    func setWritable(_ callback: (@Sendable () -> Void)?) { writable.withLock { $0 = callback } }
    func setLinkChange(_ callback: (@Sendable () -> Void)?) { linkChange.withLock { $0 = callback } }

    /// Offers a frame. With nobody there it is lost: true.
    func receive(_ header: PacketHeader, _ frame: UnsafeRawBufferPointer) -> Bool {
        receiver.withLock { $0?(header, frame) ?? true }
    }

    func tellWritable() { writable.withLock { $0?() } }
    func tellLinkChange() { linkChange.withLock { $0?() } }
}
