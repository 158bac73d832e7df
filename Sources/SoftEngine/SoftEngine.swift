// The software engine: runs x86-64 guests on hosts without hardware virtualization, every instruction of every mode by its interpreter.

import CDavit
import GuestMemory
import HostLinux
import MachineModel
import Synchronization
import X86

/// An engine that needs nothing of the host but its CPU.
public final class SoftEngine: Engine {
    /// Bytes of code memory for each vCPU unless told otherwise.
    public static let defaultCodeMemory = TranslatedExecution.defaultCodeMemory

    public let interrupts: EngineInterrupts
    public let vcpus: [any VCPU]

    private let apics: LocalAPICs
    private let softVCPUs: [SoftVCPU]
    private let memory: GuestMemory
    private let code: CodeMap
    /// Of writes to memory.
    private let observation: UInt64

    /// `limit`: what another engine offers, if the guest may go on with that. `translates`: guest code runs as translated host code where the mode allows it, else all is interpreted. `codeMemory`: bytes
    /// that each vCPU has for that code, at least 1 MiB. `perfMap`: where it is noted for Linux's perf. Throws if the host refuses the address space for the engine's tables.
    public init(
        _ parts: EngineParts, limit: [CPUIDEntry] = [], translates: Bool = true,
        codeMemory: Int = SoftEngine.defaultCodeMemory,
        perfMap: PerfMap? = nil
    ) throws(SystemError) {
        guard let code = CodeMap(span: parts.memory.span) else { throw SystemError("mmap") }
        let frequency = TSCFrequency.host
        let model = CPUModel(
            vcpuCount: parts.vcpuCount, tscFrequency: frequency, features: parts.features, limit: limit)
        let start = MachineStart(
            tsc: davit_rdtsc(), time: parts.clock.now, sharesCounter: parts.features == .baseline)
        let gates = parts.vcpuCount > 1 ? VCPUGates() : nil
        let doorbells = (0..<parts.vcpuCount).map { _ in Doorbell() }
        let apics = LocalAPICs(
            vcpuCount: parts.vcpuCount, clock: parts.clock, tscFrequency: frequency,
            wake: { doorbells[$0].ring(DAVIT_EXIT_INTERRUPT.rawValue) })
        var vcpus: [SoftVCPU] = []
        for index in 0..<parts.vcpuCount {
            let interpreter = try Interpreter(
                memory: parts.memory, io: parts.io, code: code, cpuid: model, apic: apics[index], clock: parts.clock,
                start: start, gates: gates, trace: parts.trace, log: parts.log)
            doorbells[index].connect(interpreter.cpu)
            var translated: TranslatedExecution?
            if translates && TranslatedExecution.isSupported {
                translated = try TranslatedExecution(
                    interpreter: interpreter, isShared: gates != nil, codeMemory: codeMemory, perfMap: perfMap)
            }
            vcpus.append(
                SoftVCPU(
                    index: index, interpreter: interpreter, translated: translated, apic: apics[index],
                    doorbell: doorbells[index]))
        }
        observation = parts.memory.observeWrites { range in code.didWrite(range: range) }
        self.apics = apics
        self.code = code
        memory = parts.memory
        softVCPUs = vcpus
        self.vcpus = vcpus
        interrupts = .localAPICs(apics)
    }

    deinit {
        memory.endObserving(observation)
        code.unmap()
    }

    public func statistics() -> [(name: String, value: String)] {
        var lines: [(name: String, value: String)] = []
        for vcpu in softVCPUs {
            let state = vcpu.interpreter.cpu.pointee
            let system = vcpu.interpreter.system.pointee
            // Translated code does not count what it does.
            let name = vcpu.translated == nil ? "instructions" : "instructions interpreted"
            lines.append(("vcpu\(vcpu.index) \(name)", "\(state.instructions)"))
            lines.append(("vcpu\(vcpu.index) interrupts", "\(system.interrupts)"))
            lines.append(("vcpu\(vcpu.index) exceptions", "\(system.exceptions)"))
            lines.append(("vcpu\(vcpu.index) first-level TLB misses", "\(system.firstLevelMisses &+ state.refills)"))
            lines.append(("vcpu\(vcpu.index) second-level TLB misses", "\(system.secondLevelMisses)"))
            for line in vcpu.translated?.statisticsLines(tscFrequency: TSCFrequency.host) ?? [] {
                lines.append(("vcpu\(vcpu.index) \(line.name)", line.value))
            }
        }
        return lines
    }
}

/// The moment at which the engine was made, by the host's TSC and by the machine's clock.
struct MachineStart: BitwiseCopyable, Sendable {
    var tsc: UInt64 = 0
    /// Nanoseconds.
    var time: UInt64 = 0
    /// The guest's TSC is the host's, as it has to be where engines change; else it was 0 then.
    var sharesCounter = false
}

/// Sets exit requests of a vCPU and ends its sleep, from any thread.
// Unchecked: `cpu` is set before any other thread knows of the doorbell, then constant; of what it points to only `exit_request` is
// touched, atomically.
final class Doorbell: @unchecked Sendable {
    private var cpu: UnsafeMutablePointer<davit_cpu>?

    /// `cpu` must outlive the doorbell's use.
    func connect(_ cpu: UnsafeMutablePointer<davit_cpu>) { self.cpu = cpu }

    func ring(_ bits: UInt32) {
        guard let cpu else { return }
        davit_cpu_request(cpu, bits)
        davit_cpu_wake(cpu)
    }
}
