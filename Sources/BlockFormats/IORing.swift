import CDavit
import HostLinux
import MachineModel
import Synchronization

/// Transfers that the kernel carries out on its own (io_uring(7)), and a thread that learns of their ends.
final class IORing: @unchecked Sendable {
    typealias Completion = @Sendable (_ result: Int32) -> Void

    private struct State {
        var completions: [UInt64: Completion] = [:]
        var lastTag: UInt64 = 0
        var isStopping = false
    }

    // Safe to share: pushes and submissions happen with `state` locked, waiting and popping on one thread alone.
    private let ring: OpaquePointer
    /// Guards the ring's submitting side and the completions.
    private let state = Mutex(State())
    private let thread = Mutex<HostThread?>(nil)

    private static let entries: UInt32 = 256

    /// Nil if the host has no io_uring for us.
    init?(name: String) {
        guard let ring = davit_ring_open(Self.entries) else { return nil }
        self.ring = ring
        guard let thread = try? HostThread(name: name, { [self] in serve() }) else { return nil }
        self.thread.withLock { $0 = thread }
    }

    deinit { davit_ring_close(ring) }

    enum Kind {
        case read, write
    }

    /// Begins a transfer and returns true, or false if the ring is full. `completion` gets bytes, or a negative error number.
    func begin(
        _ kind: Kind, _ descriptor: Int32, _ buffers: BlockBuffers, at offset: UInt64,
        _ completion: @escaping Completion
    ) -> Bool {
        state.withLock { state in
            guard !state.isStopping, buffers.pieces.count <= HostFile.maximumPieces else { return false }
            state.lastTag += 1
            let tag = state.lastTag
            return buffers.pieces.withUnsafeBufferPointer { pieces in
                guard
                    davit_ring_push(
                        ring, kind == .read ? DAVIT_RING_READ : DAVIT_RING_WRITE, descriptor, pieces.baseAddress,
                        UInt32(pieces.count), offset, tag)
                else { return false }
                state.completions[tag] = completion
                // It takes the request, or else the ring is broken and it will be asked for again with the next one.
                _ = davit_ring_submit(ring)
                return true
            }
        }
    }

    private func serve() {
        while davit_ring_wait(ring) == 0 {
            var tag: UInt64 = 0
            var result: Int32 = 0
            while davit_ring_pop(ring, &tag, &result) {
                let completion = state.withLock { $0.completions.removeValue(forKey: tag) }
                completion?(result)
            }
            if state.withLock({ $0.isStopping && $0.completions.isEmpty }) { return }
        }
    }

    /// Waits for what is under way, and ends the thread. Not to be called by a completion.
    func stop() {
        state.withLock { state in
            state.isStopping = true
            _ = davit_ring_push(ring, DAVIT_RING_WAKE, -1, nil, 0, 0, 0)
            _ = davit_ring_submit(ring)
        }
        thread.withLock { $0.take() }?.join()
    }
}
