import MachineModel
import Synchronization

/// What a board's devices report to; deaf once the board is detached.
final class BoardControl: MachineControl {
    private let isDetached = Atomic<Bool>(false)
    private let forward: @Sendable (MachineEvent) -> Void

    init(_ forward: @escaping @Sendable (MachineEvent) -> Void) { self.forward = forward }

    func report(_ event: MachineEvent) {
        if !isDetached.load(ordering: .acquiring) { forward(event) }
    }

    func detach() { isDetached.store(true, ordering: .releasing) }
}
