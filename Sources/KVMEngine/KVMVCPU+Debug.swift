import CDavit
import MachineModel
import X86

// Guest debug. Where the processor runs the guest, KVM has the debug registers for it (KVM_SET_GUEST_DEBUG; the guest's own are put aside
// meanwhile); where software runs its kernel, software runs all of it while a debugger wants anything.
extension KVMVCPU {
    func setDebug(_ request: DebugRequest) throws(DebugRefusal) {
        if !substitution.takesKernel {
            guard request.breakpoints.count + request.watchpoints.count <= 4,
                request.watchpoints.allSatisfy({ Self.length($0.size) != nil && $0.address % $0.size == 0 })
            else { throw DebugRefusal() }
        }
        debug = request
        standInDebugIsStale = true
        guard !substitution.takesKernel else { return }
        (debugRegisters, debugUses) = Self.registers(for: request)
        setHardwareDebug(injecting: false)
    }

    /// LEN of DR7 (Intel SDM vol. 3, 18.2.4).
    private static func length(_ size: UInt64) -> UInt64? {
        switch size {
        case 1: 0
        case 2: 1
        case 4: 3
        case 8: 2
        default: nil
        }
    }

    /// DR0 to DR3 and DR7, and what each of the first four is for.
    private static func registers(for request: DebugRequest) -> ([UInt64], [DebugStop]) {
        var registers: [UInt64] = []
        var uses: [DebugStop] = []
        var dr7: UInt64 = 0x400
        func add(_ address: UInt64, readWrite: UInt64, length: UInt64, _ use: DebugStop) {
            let number = UInt64(registers.count)
            registers.append(address)
            uses.append(use)
            dr7 |= 2 << (number * 2) | (readWrite | length << 2) << (16 + number * 4)
        }
        for address in request.breakpoints { add(address, readWrite: 0, length: 0, .breakpoint) }
        for watch in request.watchpoints {
            // There is none for reads alone.
            add(
                watch.address, readWrite: watch.kind == .write ? 1 : 3, length: length(watch.size) ?? 0,
                .watchpoint(watch))
        }
        return (registers + Array(repeating: 0, count: 4 - registers.count) + [dr7], uses)
    }

    private func setHardwareDebug(injecting: Bool) {
        var debug = kvm_guest_debug()
        if !self.debug.isEmpty || injecting { debug.control = UInt32(KVM_GUESTDBG_ENABLE) }
        if !debugUses.isEmpty {
            debug.control |= UInt32(KVM_GUESTDBG_USE_HW_BP)
            let registers = debugRegisters
            debug.arch.debugreg = (
                registers[0], registers[1], registers[2], registers[3], 0, 0, 0, registers[4]
            )
        }
        // Kernels before 5.15 do not know BLOCKIRQ, and pass over it.
        if self.debug.singleStep { debug.control |= UInt32(KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ) }
        if injecting { debug.control |= UInt32(KVM_GUESTDBG_INJECT_DB) }
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_GUEST_DEBUG, &debug)
    }

    /// KVM_EXIT_DEBUG. Nil if the guest goes on: the exception is its own.
    func takeDebugExit() -> VCPUExit? {
        if substitution.takesKernel {
            turn = turnAfterStep
            // The instruction that software had left to KVM.
            return debug.singleStep ? .debug(.singleStep) : nil
        }
        let dr6 = area.pointee.debug.arch.dr6
        for (number, use) in debugUses.enumerated() where dr6 >> UInt64(number) & 1 != 0 { return .debug(use) }
        if debug.singleStep { return .debug(.singleStep) }
        var registers = kvm_debugregs()
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_DEBUGREGS, &registers)
        registers.dr6 |= dr6 & 0xE00F
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_DEBUGREGS, &registers)
        setHardwareDebug(injecting: true)
        return nil
    }
}
