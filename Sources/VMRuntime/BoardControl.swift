import MachineModel
import Synchronization

/// What a board's devices report to. It passes on one panic and one event that ends the board's run, however often the guest asks: a
/// guest that does nothing else fills no queue. Deaf once the board is detached.
final class BoardControl: MachineControl {
    private let isDeaf = Atomic<Bool>(false)
    private let hasPanicked = Atomic<Bool>(false)
    private let forward: @Sendable (MachineEvent) -> Void

    init(_ forward: @escaping @Sendable (MachineEvent) -> Void) { self.forward = forward }

    func report(_ event: MachineEvent) {
        let isFirst =
            switch event {
            case .guestPanic: !hasPanicked.exchange(true, ordering: .relaxed) && !isDeaf.load(ordering: .acquiring)
            case .powerOff, .reset, .debugExit: !isDeaf.exchange(true, ordering: .acquiringAndReleasing)
            }
        if isFirst { forward(event) }
    }

    func detach() { isDeaf.store(true, ordering: .releasing) }
}
