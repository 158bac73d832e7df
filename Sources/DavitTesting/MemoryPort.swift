import Glibc
import MachineModel
import Synchronization

/// A network port whose far end is the test.
public final class MemoryPort: PacketPort {
    public struct Frame: Equatable, Sendable {
        public var header: PacketHeader
        public var bytes: [UInt8]
    }

    private struct State {
        var sent: [Frame] = []
        var room = Int.max
        var isUp = true
        var offloads: PacketOffloads = []
        var receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?
        var writable: (@Sendable () -> Void)?
        var linkChange: (@Sendable () -> Void)?
        var resumes = 0
    }

    public let offloads: PacketOffloads
    public let mtu: Int
    /// Guards all of the above; not held while a callback runs.
    private let state = Mutex(State())

    public init(offloads: PacketOffloads = [.checksum, .tcp4, .tcp6, .ecn], mtu: Int = 1500) {
        self.offloads = offloads
        self.mtu = mtu
    }

    public var sent: [Frame] { state.withLock { $0.sent } }
    /// What the card has said that it takes.
    public var receiveOffloads: PacketOffloads { state.withLock { $0.offloads } }
    /// How often the card has said that it can take frames again.
    public var resumes: Int { state.withLock { $0.resumes } }

    /// Frames that the port still takes. Whoever was refused is told when there is room.
    public var room: Int {
        get { state.withLock { $0.room } }
        set {
            let writable = state.withLock { state in
                state.room = newValue
                return newValue > 0 ? state.writable : nil
            }
            writable?()
        }
    }

    public var isUp: Bool {
        get { state.withLock { $0.isUp } }
        set {
            let callback = state.withLock { state in
                state.isUp = newValue
                return state.linkChange
            }
            callback?()
        }
    }

    /// The far end sends a frame; whether the card took it.
    public func receive(_ bytes: [UInt8], _ header: PacketHeader = PacketHeader()) -> Bool {
        let receiver = state.withLock { $0.receiver }
        return bytes.withUnsafeBytes { receiver?(header, $0) ?? true }
    }

    public func setReceiveOffloads(_ offloads: PacketOffloads) { state.withLock { $0.offloads = offloads } }

    public func send(_ header: PacketHeader, _ frame: [iovec]) -> Bool {
        state.withLock { state in
            guard state.room > 0 else { return false }
            if state.room != Int.max { state.room -= 1 }
            let bytes = frame.flatMap { [UInt8](UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len)) }
            state.sent.append(Frame(header: header, bytes: bytes))
            return true
        }
    }

    public func onWritable(_ callback: (@Sendable () -> Void)?) { state.withLock { $0.writable = callback } }
    public func onReceive(_ receiver: (@Sendable (PacketHeader, UnsafeRawBufferPointer) -> Bool)?) {
        state.withLock { $0.receiver = receiver }
    }
    public func resumeReceiving() { state.withLock { $0.resumes += 1 } }
    public func onLinkChange(_ callback: (@Sendable () -> Void)?) { state.withLock { $0.linkChange = callback } }
    public func close() {}
}
