// The engine over Linux's KVM (Documentation/virt/kvm/api.rst): guest instructions run on the host's processor; local APICs are the kernel's,
// and so are the other interrupt controllers and the PIT unless the board has them. Left out: nested guests, Xen and Hyper-V interfaces, system management mode.

import CDavit
import Glibc
import MachineModel
import X86

/// An engine that has the host's kernel run the guest.
public final class KVMEngine: Engine {
    public let interrupts: EngineInterrupts
    public let doorbells: (any DoorbellSpace)?
    public let vcpus: [any VCPU]
    private let kvmVCPUs: [KVMVCPU]
    private let dormancy: DormancyWatch

    /// Throws if this host's KVM refuses such a machine.
    ///
    /// `standIn` makes the processors in software for what KVM cannot carry out. With `takesKernel` they run the guest's whole kernel.
    public init(
        _ parts: EngineParts, host: KVMHost, model: KVMProcessorModel, takesKernel: Bool, irqchip: KVMIRQChip = .kernel,
        dirtyLog: KVMDirtyLog = .bitmap,
        standIn: @escaping @Sendable (PrincipalEngine) throws -> any StandIn
    ) throws(KVMError) {
        let takesKernel = takesKernel && host.offersSyncRegisters
        guard parts.vcpuCount <= host.maximumVCPUs else {
            throw KVMError(
                "--cpus \(parts.vcpuCount) is more than this host's KVM runs in one machine",
                mend: "give at most \(host.maximumVCPUs)")
        }
        guard davit_kick_prepare() == 0 else { throw KVMError("sigaction", -errno) }
        let machine = try KVMVirtualMachine(
            host, memory: parts.memory, dirtyLog: dirtyLog, logsWrites: takesKernel)
        let routes = try machine.makeInterruptControllers(irqchip, host: host)
        let localAPICs = irqchip == .split ? KVMLocalAPICs(routes) : nil
        let dormancy = DormancyWatch(vcpuCount: parts.vcpuCount, clock: parts.clock)
        let substitution = Substitution(takesKernel: takesKernel, machine: machine, make: standIn)
        if host.capability(KVM_CAP_EXIT_ON_EMULATION_FAILURE) != 0 { machine.reportEmulationFailures() }
        let shared = KVMShared(
            host: host, machine: machine, io: parts.io, tscFrequency: model.tscFrequency,
            sharesCounter: parts.features == .baseline,
            dormancy: dormancy, substitution: substitution, localAPICs: localAPICs)
        let supported = try KVMCPUID.supported(host)
        // The guest's counter is the host's where engines change, else it begins at 0.
        let start = parts.features == .baseline ? 0 : davit_rdtsc()
        machine.setClock(parts.clock.now)
        var vcpus: [KVMVCPU] = []
        for index in 0..<parts.vcpuCount {
            let table = model.entries(vcpu: index, supported: supported)
            vcpus.append(try KVMVCPU(index: index, shared: shared, cpuid: table, tscOffset: 0 &- start))
        }
        substitution.principal = PrincipalEngine(
            // What the kernel answers itself: its interrupt controllers and the PIT.
            ports: localAPICs != nil
                ? []
                : [
                    PlatformLayout.Port.pic1, PlatformLayout.Port.pic2, PlatformLayout.Port.edgeLevelControl,
                    PlatformLayout.Port.pit, PlatformLayout.Port.systemControlB...PlatformLayout.Port.systemControlB,
                ], pages: localAPICs != nil ? [] : [PlatformLayout.MMIO.ioapic.rawValue],
            cpuid: vcpus.map {
                takesKernel
                    ? model.kernelEntries(vcpu: $0.index, shown: $0.shownCPUID)
                    : model.entries(vcpu: $0.index, supported: $0.shownCPUID)
            },
            start: 0 &- vcpus[0].tscOffset)
        // They will be needed at once; until then others load the guest. Should it fail, the vCPU that needs them says so.
        if takesKernel { _ = try? substitution.get() }
        self.vcpus = vcpus
        kvmVCPUs = vcpus
        localAPICs?.setBootProcessor(vcpus[0])
        interrupts =
            localAPICs.map { .localAPICs($0) }
            ?? .wholeChip(line: { KVMInterruptLine(machine, gsi: $0) }, bus: KVMMessages(routes))
        // Where software has the kernel, the writes to devices are software's.
        let takesWrites = !takesKernel && host.capability(KVM_CAP_IOEVENTFD_ANY_LENGTH) != 0
        doorbells = takesWrites ? KVMDoorbells(machine) : nil
        self.dormancy = dormancy
        dormancy.start { [kvmVCPUs] in for vcpu in kvmVCPUs { vcpu.look() } }
    }

    deinit { dormancy.stop() }

    public func statistics() -> [(name: String, value: String)] {
        kvmVCPUs.flatMap { $0.statistics() }
    }
}
