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
    let translated: TranslatedExecution?

    init(index: Int, interpreter: Interpreter, translated: TranslatedExecution?, apic: LocalAPIC, doorbell: Doorbell) {
        self.translated = translated
        self.index = index
        self.interpreter = interpreter
        self.apic = apic
        self.doorbell = doorbell
        interpreter.reset(waitsForSIPI: index != 0)
    }

    func run() -> VCPUExit {
        // The thread may be another than the last time.
        interpreter.stealTime.wait = nil
        if let translated, !translated.catchFaults() {
            return .failed(report: "the translator cannot catch faults: too many machines in this process")
        }
        switch translated?.runGuest() ?? interpreter.run() {
        case .stopped: return .stopped
        case .debug: return .debug(interpreter.debugger.stop)
        case .tripleFault: return .tripleFault(report: report())
        case .haltedForever: return .haltedForever(report: report())
        }
    }

    func setDebug(_ request: DebugRequest) { interpreter.setDebug(request) }

    /// Registers, code bytes and last branches.
    private func report() -> String { saveState().report + "\n" + interpreter.report() }

    func requestStop() { doorbell.ring(DAVIT_EXIT_STOP.rawValue) }
}
