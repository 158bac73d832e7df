import CDavit
import GuestMemory
import HostLinux
import MachineModel
import Synchronization
import X86

/// The software engine's processors in the service of another engine.
public final class SoftStandIn: StandIn {
    public let processors: [any StandInProcessor]
    private let memory: GuestMemory
    private let code: CodeMap
    /// Of writes to memory.
    private let observation: UInt64

    /// Bytes of code memory for each vCPU: kernel code alone is translated, as far as KVM does not run it.
    private static let codeMemory = 3 << 19

    /// Throws if the host refuses the address space for tables.
    public init(_ parts: EngineParts, for principal: PrincipalEngine) throws(SystemError) {
        guard let code = CodeMap(span: parts.memory.span) else { throw SystemError("mmap") }
        let model = CPUModel(vcpuCount: parts.vcpuCount, tscFrequency: TSCFrequency.host)
        let gates = parts.vcpuCount > 1 ? VCPUGates() : nil
        var processors: [any StandInProcessor] = []
        for index in 0..<parts.vcpuCount {
            let interpreter = try Interpreter(
                memory: parts.memory, io: parts.io, code: code, cpuid: model, clock: parts.clock,
                start: MachineStart(tsc: principal.start, time: 0), gates: gates, foreign: principal,
                foreignIndex: index,
                trace: parts.trace,
                log: parts.log)
            var translated: TranslatedExecution?
            if TranslatedExecution.isSupported {
                translated = try TranslatedExecution(
                    interpreter: interpreter, isShared: gates != nil, codeMemory: Self.codeMemory)
            }
            processors.append(SoftStandInProcessor(interpreter: interpreter, translated: translated))
        }
        observation = parts.memory.observeWrites { range in code.didWrite(range: range) }
        self.processors = processors
        self.code = code
        memory = parts.memory
    }

    deinit {
        memory.endObserving(observation)
        code.observer.set(nil)
        code.unmap()
    }

    public func observeCode(_ willKeepCode: (@Sendable (_ page: UInt64) -> Void)?) { code.observer.set(willKeepCode) }

    public func engineDidWrite(page: UInt64) {
        _ = code.didWrite(at: page << 12, size: GuestMemory.pageSize)
    }
}

/// One of them.
// Unchecked: it belongs to its vCPU's thread.
final class SoftStandInProcessor: StandInProcessor, @unchecked Sendable {
    private let interpreter: Interpreter
    private let translated: TranslatedExecution?
    private var catchesFaults = false

    init(interpreter: Interpreter, translated: TranslatedExecution?) {
        self.interpreter = interpreter
        self.translated = translated
    }

    var request: (word: UnsafeMutablePointer<UInt32>, bits: UInt32) {
        (davit_cpu_request_word(interpreter.cpu), DAVIT_EXIT_STOP.rawValue)
    }

    func load(_ state: VCPUState) throws(InvalidVCPUState) {
        try interpreter.check(state)
        interpreter.load(state)
        let isMapped = state.apicBase & 1 << 11 != 0 && state.apicBase & 1 << 10 == 0
        interpreter.system.pointee.foreignAPICPage = isMapped ? state.apicBase & PageEntry.addressMask : UInt64.max
        interpreter.system.pointee.translationsChanged = false
        davit_cpu_served(interpreter.cpu, DAVIT_EXIT_STOP.rawValue)
    }

    func save() -> VCPUState {
        var state = interpreter.saveState(msrs: Interpreter.exchangedMSRs)
        state.apicBase = interpreter.cpu.pointee.apic_base
        return state
    }

    func run(_ extent: StandInExtent, event: StandInEvent?) -> StandInEnd {
        // Without it the interpreter carries everything out.
        if !catchesFaults, let translated { catchesFaults = translated.catchFaults() }
        interpreter.system.pointee.hasDeclined = false
        if let event, !interpreter.take(event) { return .tripleFault }
        switch extent {
        case .oneInstruction:
            guard interpreter.runOne() else { return .tripleFault }
            return interpreter.system.pointee.hasDeclined ? .declined : .done
        case .untilPlainUserMode:
            if interpreter.isPlainUserMode { return .done }
            let exit = (catchesFaults ? translated : nil)?.runGuest() ?? interpreter.run()
            if exit == .debug { return .debug(interpreter.debugger.stop) }
            guard exit == .stopped else { return .tripleFault }
            if interpreter.system.pointee.hasDeclined { return .declined }
            return interpreter.isPlainUserMode || interpreter.cpu.pointee.halted != 0 ? .done : .interrupted
        }
    }

    func setDebug(_ request: DebugRequest) { interpreter.setDebug(request) }

    func takeTranslationChange() -> Bool {
        defer { interpreter.system.pointee.translationsChanged = false }
        return interpreter.system.pointee.translationsChanged
    }
}
