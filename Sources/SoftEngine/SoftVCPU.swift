import CDavit
import MachineModel
import X86

/// One virtual CPU of the software engine.
// Unchecked: the interpreter belongs to the thread in `run`, and to whoever calls `saveState` and `restore` while none is there.
final class SoftVCPU: VCPU, @unchecked Sendable {
    let index: Int
    let interpreter: Interpreter
    let apic: LocalAPIC
    private let doorbell: Doorbell

    init(index: Int, interpreter: Interpreter, apic: LocalAPIC, doorbell: Doorbell) {
        self.index = index
        self.interpreter = interpreter
        self.apic = apic
        self.doorbell = doorbell
        interpreter.reset(waitsForSIPI: index != 0)
    }

    func run() -> VCPUExit {
        switch interpreter.run() {
        case .stopped: .stopped
        case .tripleFault: .tripleFault(report: interpreter.report())
        case .haltedForever: .haltedForever(report: interpreter.report())
        }
    }

    func requestStop() { doorbell.ring(DAVIT_EXIT_STOP.rawValue) }
}
