import MachineModel
import Synchronization

/// Notices that a guest has halted for ever: KVM lets a vCPU that is in HLT with interrupts off sleep in the kernel without a word.
///
/// Once a second every vCPU is fetched out of KVM_RUN to look whether anything but another vCPU could wake it. If all of them say no
/// twice in a row, nobody ever will.
final class DormancyWatch: Sendable {
    private struct State {
        var dormant: Set<Int> = []
        /// Rounds in a row at whose end all were dormant.
        var rounds = 0
        var timer: (any VMTimer)?
        var look: (@Sendable () -> Void)?
    }

    /// In nanoseconds.
    private static let period: UInt64 = 500_000_000

    private let vcpuCount: Int
    private let clock: any VMClock
    /// Guards the round; not held while vCPUs are kicked.
    private let state = Mutex(State())

    init(vcpuCount: Int, clock: any VMClock) {
        self.vcpuCount = vcpuCount
        self.clock = clock
    }

    /// `look` has every vCPU call `report` soon.
    func start(look: @escaping @Sendable () -> Void) {
        let timer = clock.makeTimer { [weak self] in self?.beginRound() }
        state.withLock { state in
            state.look = look
            state.timer = timer
        }
        timer.arm(at: clock.now &+ Self.period)
    }

    /// Lets go of the vCPUs, too.
    func stop() {
        let timer = state.withLock { state in
            state.look = nil
            return state.timer.take()
        }
        timer?.cancel()
    }

    private func beginRound() {
        let (look, timer) = state.withLock { state in
            state.rounds = state.dormant.count == vcpuCount ? state.rounds + 1 : 0
            state.dormant = []
            return (state.look, state.timer)
        }
        look?()
        timer?.arm(at: clock.now &+ Self.period)
    }

    /// A vCPU's answer. True if the guest has halted for ever.
    func report(vcpu: Int, isDormant: Bool) -> Bool {
        state.withLock { state in
            if isDormant { state.dormant.insert(vcpu) } else { state.dormant.remove(vcpu) }
            return state.rounds >= 1 && state.dormant.count == vcpuCount
        }
    }
}
