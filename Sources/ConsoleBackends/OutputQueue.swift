import Glibc
import HostLinux
import Synchronization

/// Bytes on their way to a descriptor, written by a thread of its own, so that a slow reader holds nobody up until `capacity` bytes are
/// on their way. From then on whoever brings more waits a moment for room, and is refused if none comes.
final class OutputQueue: Sendable {
    private struct State {
        var bytes: [UInt8] = []
        /// The writer holds bytes that `bytes` no longer has.
        var isWriting = false
        /// Takes nothing any more; the writer ends when it has written what there is.
        var isClosed = false
        /// The descriptor failed: what comes is dropped.
        var isBroken = false
        /// Nobody waits any more: what does not fit is dropped.
        var isHurried = false
        /// Somebody was refused, and is to be told when there is room.
        var hasRefused = false
        var writer: HostThread?
    }

    /// How often and for how long a caller waits for room: long enough for a reader that is busy with what it has read.
    private static let looks = 10
    private static let lookMilliseconds: Int32 = 10

    private let descriptor: Int32
    private let capacity: Int
    private let filled: EventFD
    private let drained: EventFD
    private let onFailure: @Sendable (SystemError) -> Void
    private let onRoom: @Sendable () -> Void
    /// Guards what is on its way; not held while the descriptor is written to.
    private let state = Mutex(State())

    /// `onFailure` is called at most once, `onRoom` when somebody was refused and there is room again; both on the writer's thread.
    init(
        descriptor: Int32, capacity: Int = 1 << 20, onRoom: @escaping @Sendable () -> Void = {},
        onFailure: @escaping @Sendable (SystemError) -> Void
    ) throws(SystemError) {
        self.descriptor = descriptor
        self.capacity = capacity
        self.onFailure = onFailure
        self.onRoom = onRoom
        filled = try EventFD()
        drained = try EventFD()
        let writer = try HostThread(name: "davit-output") { [self] in serve() }
        state.withLock { $0.writer = writer }
    }

    /// Takes all bytes, or none if the queue stays full for a tenth of a second. A broken or closed queue drops them.
    func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        for _ in 0..<Self.looks {
            if take(bytes, isLastLook: false) { return true }
            // The event may tell of room that is gone again, or be taken by another who waits: hence several looks.
            _ = drained.wait(milliseconds: Self.lookMilliseconds)
            _ = drained.drain()
        }
        return take(bytes, isLastLook: true)
    }

    private func take(_ bytes: UnsafeRawBufferPointer, isLastLook: Bool) -> Bool {
        state.withLock { state in
            if state.isBroken || state.isClosed { return true }
            if state.bytes.count >= capacity {
                state.hasRefused = isLastLook
                return state.isHurried
            }
            if state.bytes.isEmpty { filled.signal() }
            state.bytes.append(contentsOf: bytes)
            return true
        }
    }

    /// Waits until everything is written; once hurried, for `patience` milliseconds more at most.
    func flush(patience: Int = 500) {
        var waited = 0
        while waited < patience {
            let (isDone, isHurried) = state.withLock { state in
                (state.isBroken || state.bytes.isEmpty && !state.isWriting, state.isHurried)
            }
            if isDone { return }
            usleep(1000)
            if isHurried { waited += 1 }
        }
    }

    /// Lets no one wait for the descriptor any more: from here on what does not fit is dropped.
    func hurry() {
        state.withLock { $0.isHurried = true }
        drained.signal()
    }

    /// Takes nothing any more. The writer's thread ends when the descriptor has taken what there is.
    func close() {
        state.withLock { $0.isClosed = true }
        filled.signal()
        drained.signal()
    }

    private func serve() {
        while true {
            _ = filled.wait()
            _ = filled.drain()
            let (bytes, isClosed) = state.withLock { state in
                let bytes = state.bytes
                state.bytes = []
                state.isWriting = !bytes.isEmpty && !state.isBroken
                return (state.isBroken ? [] : bytes, state.isClosed)
            }
            drained.signal()
            if let failure = write(bytes) {
                state.withLock { $0.isBroken = true }
                onFailure(failure)
            }
            let hasRefused = state.withLock { state in
                state.isWriting = false
                let hasRefused = state.hasRefused
                state.hasRefused = false
                return hasRefused
            }
            if hasRefused { onRoom() }
            if isClosed { return }
        }
    }

    private func write(_ bytes: [UInt8]) -> SystemError? {
        bytes.withUnsafeBytes { buffer in
            var rest = buffer[...]
            while !rest.isEmpty {
                if state.withLock({ $0.isBroken }) { return nil }
                let count = Glibc.write(descriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
                if count > 0 {
                    rest = rest.dropFirst(count)
                } else if errno == EAGAIN {
                    // Somebody else set O_NONBLOCK on the open file that this descriptor shares.
                    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    _ = poll(&request, 1, 100)
                } else if errno != EINTR {
                    return SystemError("write")
                }
            }
            return nil
        }
    }
}
