import CDavit
import Synchronization

/// The latest writes to cached code, of all vCPUs and devices, in order. A vCPU that keeps translated code compares `count` whenever it
/// is out of that code, and forgets what was hit since: before it runs on after an interrupt or any other serializing event it has
/// seen what the writer did before (cross-modifying code, SDM vol. 3, 9.1.3).
final class CodeInvalidations: Sendable {
    struct Entry {
        /// Guest physical address >> 12.
        var page: UInt64
        /// Which 64-byte chunks of the page.
        var chunks: UInt64
    }

    /// Entries kept; who lags behind by more forgets all its code.
    private static let capacity = 256

    /// Entries ever appended.
    private let total = Atomic<UInt64>(0)
    /// Guards the ring.
    private let ring = Mutex<[Entry]>([])
    /// vCPUs that are to leave translated code when something is appended: a loop in it would never see what a device or another vCPU
    /// wrote. Guards the list; of what is pointed to only `exit_request` is touched, atomically.
    private let listeners = Mutex<[Listener]>([])

    // Unchecked: see `listeners`; who subscribes sees to the lifetime.
    private struct Listener: @unchecked Sendable {
        let cpu: UnsafeMutablePointer<davit_cpu>
    }

    /// `cpu` lives until `unsubscribe`.
    func subscribe(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        let listener = Listener(cpu: cpu)
        listeners.withLock { $0.append(listener) }
    }

    func unsubscribe(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        let listener = Listener(cpu: cpu)
        listeners.withLock { $0.removeAll { $0.cpu == listener.cpu } }
    }

    var count: UInt64 { total.load(ordering: .acquiring) }

    func append(_ entry: Entry) {
        ring.withLock { ring in
            let n = total.load(ordering: .relaxed)
            if ring.count < Self.capacity { ring.append(entry) } else { ring[Int(n % UInt64(Self.capacity))] = entry }
            total.store(n &+ 1, ordering: .releasing)
        }
        listeners.withLock { for listener in $0 { davit_cpu_request(listener.cpu, DAVIT_EXIT_CALL.rawValue) } }
    }

    /// Calls `body` for the entries after the first `seen`, and returns how many there are now; nil if some of them are gone.
    func forEach(after seen: UInt64, _ body: (Entry) -> Void) -> UInt64? {
        ring.withLock { ring in
            let n = total.load(ordering: .relaxed)
            guard n &- seen <= UInt64(Self.capacity) else { return nil }
            for i in seen..<n { body(ring[Int(i % UInt64(Self.capacity))]) }
            return n
        }
    }
}
