import CDavit
import Synchronization

/// Whether a vCPU is among guest instructions, and the flushes of write tags that others have asked of it.
///
/// Before a vCPU caches code from a page that may have write tags, every other vCPU must have dropped its own: who is inside serves the
/// request at its next boundary, who is outside serves it when it comes back.
// Unchecked: the CPU state is touched by atomic operations only.
final class VCPUGate: @unchecked Sendable {
    private let isInside = Atomic<Bool>(false)
    private let requested = Atomic<UInt64>(0)
    private let served = Atomic<UInt64>(0)
    private let solitude: Solitude
    /// Safe: it outlives all vCPU threads, and only `exit_request` is touched from others.
    private let cpu: UnsafeMutablePointer<davit_cpu>

    init(cpu: UnsafeMutablePointer<davit_cpu>, of gates: VCPUGates) {
        self.cpu = cpu
        solitude = gates.solitude
    }

    /// On the vCPU's thread: guest instructions follow, once no vCPU is alone any more. True if write tags must go first.
    func enter() -> Bool {
        isInside.store(true, ordering: .sequentiallyConsistent)
        while solitude.isTaken {
            leave()
            solitude.await()
            isInside.store(true, ordering: .sequentiallyConsistent)
        }
        return mustFlush()
    }

    /// On the vCPU's thread: no guest instruction is under way.
    func leave() { isInside.store(false, ordering: .sequentiallyConsistent) }

    /// On the vCPU's thread, which is to flush at once if so and to call `didFlush` then.
    func mustFlush() -> Bool {
        requested.load(ordering: .sequentiallyConsistent) != served.load(ordering: .relaxed)
    }

    /// The requests that a flush begun now serves.
    var pendingRequests: UInt64 { requested.load(ordering: .sequentiallyConsistent) }
    func didFlush(_ request: UInt64) { served.store(request, ordering: .sequentiallyConsistent) }

    /// On another vCPU's thread, itself outside: has the write tags dropped.
    func request() -> UInt64 {
        let request = requested.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
        davit_cpu_request(cpu, DAVIT_EXIT_CALL.rawValue)
        return request
    }

    /// On another vCPU's thread: returns when this one is outside, which it stays while `solitude` is taken.
    func sendOut() {
        davit_cpu_request(cpu, DAVIT_EXIT_CALL.rawValue)
        while isInside.load(ordering: .sequentiallyConsistent) { davit_cpu_relax() }
    }

    func hasServed(_ request: UInt64) -> Bool {
        !isInside.load(ordering: .sequentiallyConsistent) || served.load(ordering: .sequentiallyConsistent) >= request
    }
}

/// Held by the one vCPU that runs while no other does.
final class Solitude: Sendable {
    /// Guards nothing but the turn.
    private let turn = Mutex<Void>(())
    private let taken = Atomic<Bool>(false)

    var isTaken: Bool { taken.load(ordering: .sequentiallyConsistent) }
    func await() { turn.withLock { _ in } }

    /// `body` must not throw, nor wait for another vCPU.
    func take(_ body: () -> Void) {
        turn.withLock { _ in
            taken.store(true, ordering: .sequentiallyConsistent)
            body()
            taken.store(false, ordering: .sequentiallyConsistent)
        }
    }
}

/// The gates of all vCPUs of a machine.
final class VCPUGates: Sendable {
    let solitude = Solitude()
    private let gates = Mutex<[VCPUGate]>([])
    /// vCPUs that nothing but another vCPU can wake, in the low 16 bits; above them how often one has woken.
    private let dormancy = Atomic<Int>(0)

    func fallAsleep() { dormancy.wrappingAdd(1, ordering: .sequentiallyConsistent) }
    func wakeUp() { dormancy.wrappingAdd(1 << 16 - 1, ordering: .sequentiallyConsistent) }

    /// All of `count` vCPUs are dormant and none has been asked to wake. Nobody woke between the two looks at `dormancy`, so whoever
    /// had been asked before still shows it.
    func areAllDormant(_ count: Int, isAnyoneAsked: () -> Bool) -> Bool {
        let before = dormancy.load(ordering: .sequentiallyConsistent)
        return before & 0xFFFF == count && !isAnyoneAsked()
            && dormancy.load(ordering: .sequentiallyConsistent) == before
    }

    func add(_ gate: VCPUGate) { gates.withLock { $0.append(gate) } }

    /// Runs `body`, which must not wait for another vCPU, while no other vCPU is among guest instructions. On `own`'s thread, which has
    /// to ask `mustFlush` in `body` before it uses a write tag, and to enter afterwards.
    func runAlone(_ own: VCPUGate, _ body: () -> Void) {
        // Outside itself meanwhile: two that want to be alone must not wait for each other.
        own.leave()
        let others = gates.withLock { $0 }
        solitude.take {
            for gate in others where gate !== own { gate.sendOut() }
            body()
        }
    }

    /// Returns when every vCPU but `own`'s has dropped its write tags, or is outside and will before it comes back.
    func dropWriteTags(exceptOf own: VCPUGate) {
        // The lock guards the array only, which is complete before the first vCPU runs.
        let others = gates.withLock { $0 }
        guard others.count > 1 else { return }
        var waiting: [(VCPUGate, UInt64)] = []
        for gate in others where gate !== own { waiting.append((gate, gate.request())) }
        for (gate, request) in waiting {
            while !gate.hasServed(request) { davit_cpu_relax() }
        }
    }
}
