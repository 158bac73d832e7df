import CDavit
import MachineModel
import X86

// What an interpreter that stands in for another engine's processor keeps off. Nothing of the instruction has been committed when it
// is declined.
extension Interpreter {
    /// 64-bit code at CPL 3, with neither single steps nor breakpoints, of the guest or of a debugger.
    var isPlainUserMode: Bool {
        cpu.pointee.cpl == 3 && is64Bit && cpu.pointee.rflags & RFLAGS.TF == 0 && system.pointee.breakpoints == 0
            && !system.pointee.isUserModeDebugged
    }

    /// Into the handler of what the other engine has for the guest. False after a triple fault.
    func take(_ event: StandInEvent) -> Bool {
        enterGuest()
        defer { gate?.leave() }
        cpu.pointee.shadow = 0
        switch event {
        case .interrupt(let vector):
            system.pointee.interrupts &+= 1
            traceInterrupt(vector)
            return deliverOrRaise(
                InterruptEvent(vector: vector, source: .hardware, returnAddress: cpu.pointee.rip))
        case .nmi:
            system.pointee.nmiBlocked = true
            return deliverOrRaise(
                InterruptEvent(
                    vector: ExceptionVector.NMI.rawValue, source: .hardware, returnAddress: cpu.pointee.rip))
        case .exception(let vector, let errorCode):
            guard let vector = ExceptionVector(rawValue: vector) else { return raise(.generalProtection) }
            return raise(errorCode.map { GuestFault(vector, errorCode: $0) } ?? GuestFault(vector))
        }
    }

    /// Throws for ports that the other engine answers.
    func declinePort(_ port: UInt16, size: UInt8) throws(GuestFault) {
        guard let devices = foreign else { return }
        let last = port &+ UInt16(size) &- 1
        for range in devices.ports where range.overlaps(port...max(port, last)) { throw .declined }
    }

    /// Throws for an access to registers that the other engine answers. `translation` is what `translate` found.
    func declinePage(_ translation: UInt64) throws(GuestFault) {
        let page = translation & ~PageRights.mask
        guard let devices = foreign, hostAddress(physical: page) == nil || page == system.pointee.foreignAPICPage
        else { return }
        if page == system.pointee.foreignAPICPage || devices.pages.contains(page) { throw .declined }
    }

    /// Throws for MSRs that are not exchanged with the other engine.
    func declineMSR(_ number: UInt32) throws(GuestFault) {
        guard system.pointee.standsIn, !Self.exchangedMSRs.contains(number) else { return }
        switch number {
        case MSR.EFER, MSR.FS_BASE, MSR.GS_BASE: return
        default: throw .declined
        }
    }

    /// Throws if the instruction is the other engine's as a whole.
    func declineInstruction() throws(GuestFault) {
        if system.pointee.standsIn { throw .declined }
    }

    /// CPUID as the other engine's guest knows it, with what depends on the CPU's state.
    func foreignAnswer(leaf: UInt32, subleaf: UInt32) -> CPUIDAnswer {
        let entry = foreignCPUID.first { $0.leaf == leaf && (!$0.dependsOnSubleaf || $0.subleaf == subleaf) }
        guard let entry else { return CPUIDAnswer() }
        var answer = CPUIDAnswer(eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
        switch leaf {
        case 1:
            answer.ecx &= ~CPUIDBits.OSXSAVE
            if cpu.pointee.cr4 & CR4.OSXSAVE != 0 { answer.ecx |= CPUIDBits.OSXSAVE }
            if cpu.pointee.apic_base & 1 << 11 == 0 { answer.edx &= ~CPUIDBits.APIC }
        case 0xD where subleaf <= 1:
            // The size of what XCR0 enables; compacted it is no larger.
            if answer.ebx != 0 { answer.ebx = areaSize(cpu.pointee.xcr0) }
            if subleaf == 0 && answer.ecx != 0 { answer.ecx = areaSize(offeredXCR0) }
        default: break
        }
        return answer
    }

    /// MSRs in the state that is exchanged, those in fields of their own aside.
    static let exchangedMSRs: [UInt32] = [
        MSR.SYSENTER_CS, MSR.SYSENTER_ESP, MSR.SYSENTER_EIP, MSR.PAT, MSR.STAR, MSR.LSTAR, MSR.CSTAR, MSR.SFMASK,
        MSR.KERNEL_GS_BASE, MSR.TSC_AUX,
    ]
}
