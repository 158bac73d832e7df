import MachineModel
import Synchronization

/// A byte channel whose far end is the test: `sent` is what the device wrote, `receive` plays what comes in.
public final class MemoryByteChannel: ByteChannel {
    private struct State {
        var sent: [UInt8] = []
        var writes = 0
        var room = Int.max
        var refused = false
        var pending: [UInt8] = []
        var receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?
        var writable: (@Sendable () -> Void)?
    }

    /// Guards all of the above; never held while a callback runs.
    private let state = Mutex(State())

    public init() {}

    /// Every byte that the device wrote and the channel took.
    public var sent: [UInt8] { state.withLock { $0.sent } }

    /// `sent` as text.
    public var sentText: String { String(decoding: sent, as: UTF8.self) }

    /// How many calls of `write` it took.
    public var writes: Int { state.withLock { $0.writes } }

    /// Bytes that came in and that the device has not taken yet.
    public var pendingBytes: Int { state.withLock { $0.pending.count } }

    /// How many bytes the channel will still take before it refuses, as a full pipe does. Without limit at first. A
    /// device that was refused is told when room is made.
    public var room: Int {
        get { state.withLock { $0.room } }
        set {
            let callback = state.withLock { state in
                state.room = newValue
                guard state.refused, newValue > 0 else { return nil as (@Sendable () -> Void)? }
                state.refused = false
                return state.writable
            }
            callback?()
        }
    }

    /// The far end sends bytes: they are offered at once, and again on `resumeReading` as long as the device does not
    /// take them.
    public func receive(_ bytes: [UInt8]) {
        state.withLock { $0.pending += bytes }
        offer()
    }

    /// The far end sends the UTF-8 bytes of `text`.
    public func receive(_ text: String) { receive([UInt8](text.utf8)) }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        state.withLock { state in
            let count = min(bytes.count, state.room)
            state.sent += bytes[..<count]
            state.writes += 1
            if state.room != Int.max { state.room -= count }
            if count < bytes.count { state.refused = true }
            return count
        }
    }

    public func onWritable(_ callback: (@Sendable () -> Void)?) {
        state.withLock { $0.writable = callback }
    }

    public func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {
        state.withLock { $0.receiver = receiver }
        if receiver != nil { offer() }
    }

    public func resumeReading() { offer() }

    private func offer() {
        while true {
            let (receiver, bytes) = state.withLock { ($0.receiver, $0.pending) }
            guard let receiver, !bytes.isEmpty else { return }
            let taken = bytes.withUnsafeBytes { receiver($0) }
            guard taken > 0 else { return }
            state.withLock { $0.pending.removeFirst(min(taken, $0.pending.count)) }
        }
    }
}
