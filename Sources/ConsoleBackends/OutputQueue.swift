import Glibc
import HostLinux
import Synchronization

/// Bytes on their way to a descriptor, written by a thread of its own, so that a vCPU does not wait for a slow reader until
/// `capacity` bytes are on their way; from then on it does, and nothing is lost.
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
        var wantsFlush = false
        var writer: HostThread?
    }

    /// How long the writer waits for more bytes: a guest's driver gives them one by one.
    private static let gatherMicroseconds: UInt32 = 500
    private static let worthWriting = 4096

    private let descriptor: Int32
    private let capacity: Int
    private let filled: EventFD
    private let drained: EventFD
    private let onFailure: @Sendable (SystemError) -> Void
    /// Guards what is on its way; not held while the descriptor is written to.
    private let state = Mutex(State())

    /// `onFailure` is called at most once, on the writer's thread.
    init(
        descriptor: Int32, capacity: Int = 1 << 20, onFailure: @escaping @Sendable (SystemError) -> Void
    ) throws(SystemError) {
        self.descriptor = descriptor
        self.capacity = capacity
        self.onFailure = onFailure
        filled = try EventFD()
        drained = try EventFD()
        let writer = try HostThread(name: "davit-output") { [self] in serve() }
        state.withLock { $0.writer = writer }
    }

    /// Waits while the queue is full; drops the bytes if it is broken or closed.
    func append(_ bytes: UnsafeRawBufferPointer) {
        while true {
            let isFull = state.withLock { state in
                if state.isBroken || state.isClosed { return false }
                if state.bytes.count >= capacity { return !state.isHurried }
                if state.bytes.isEmpty { filled.signal() }
                state.bytes.append(contentsOf: bytes)
                return false
            }
            guard isFull else { return }
            // The time limit is for several who wait: one of them may take the other's signal.
            _ = drained.wait(milliseconds: 10)
            _ = drained.drain()
        }
    }

    /// Waits until everything is written; once hurried, for `patience` milliseconds more at most.
    func flush(patience: Int = 500) {
        var waited = 0
        while waited < patience {
            let (isDone, isHurried) = state.withLock { state in
                state.wantsFlush = true
                return (state.isBroken || state.bytes.isEmpty && !state.isWriting, state.isHurried)
            }
            if isDone { break }
            filled.signal()
            usleep(1000)
            if isHurried { waited += 1 }
        }
        state.withLock { $0.wantsFlush = false }
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
            let isUrgent = state.withLock { $0.wantsFlush || $0.isClosed || $0.bytes.count >= Self.worthWriting }
            if !isUrgent { usleep(Self.gatherMicroseconds) }
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
            state.withLock { $0.isWriting = false }
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
