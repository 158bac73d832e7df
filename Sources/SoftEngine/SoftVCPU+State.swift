import CDavit
import MachineModel
import X86

// Saved state: all of it is judged before any of it is taken.
extension SoftVCPU {
    func saveState() -> VCPUState {
        interpreter.settleEndOfInterrupt()
        var state = interpreter.saveState(msrs: interpreter.savedMSRs)
        state.cr8 = apic.cr8
        state.apicBase = apic.base
        state.localAPIC = apic.savePage()
        return state
    }

    func restore(_ state: VCPUState) throws(InvalidVCPUState) {
        try interpreter.check(state)
        let deadline = state.modelSpecificRegisters[MSR.TSC_DEADLINE] ?? 0
        // The only part that can still refuse, before anything has changed.
        try apic.restore(page: state.localAPIC, base: state.apicBase, tscDeadline: deadline)
        interpreter.load(state)
    }
}

extension Interpreter {
    /// All but the local APIC, with these MSRs.
    func saveState(msrs: [UInt32]) -> VCPUState {
        let cpu = self.cpu.pointee
        func segment(_ index: davit_segment_index) -> SegmentState {
            let segment = segments[Int(index.rawValue)]
            return SegmentState(
                selector: segment.selector, attributes: segment.attributes, limit: segment.limit, base: segment.base)
        }
        var state = VCPUState()
        for i in 0..<16 { state.generalRegisters[i] = gpr[i] }
        state.rip = cpu.rip
        state.rflags = cpu.rflags
        state.es = segment(DAVIT_ES)
        state.cs = segment(DAVIT_CS)
        state.ss = segment(DAVIT_SS)
        state.ds = segment(DAVIT_DS)
        state.fs = segment(DAVIT_FS)
        state.gs = segment(DAVIT_GS)
        state.ldtr = segment(DAVIT_LDTR)
        state.tr = segment(DAVIT_TR)
        state.gdtr = TableRegisterState(base: cpu.gdtr.base, limit: cpu.gdtr.limit)
        state.idtr = TableRegisterState(base: cpu.idtr.base, limit: cpu.idtr.limit)
        state.cr0 = cpu.cr0
        state.cr2 = cpu.cr2
        state.cr3 = cpu.cr3
        state.cr4 = cpu.cr4
        state.efer = cpu.efer
        state.xcr0 = cpu.xcr0
        let dr = davit_cpu_dr(self.cpu)
        state.debugRegisters = [dr[0], dr[1], dr[2], dr[3], dr[6], dr[7]]
        for number in msrs { state.modelSpecificRegisters[number] = try? readMSR(number) }
        state.timeStampCounter = guestTSC
        prepareImage()
        let size = opaqueComponents.isEmpty ? 1024 : Int(DAVIT_XSAVE_SIZE)
        state.xsave = [UInt8](UnsafeRawBufferPointer(start: xsave, count: size))
        let system = self.system.pointee
        state.activity = system.waitsForSIPI ? .waitingForSIPI : cpu.halted != 0 ? .halted : .running
        // HLT was the one instruction that a shadow covers; KVM would not wake a halted vCPU in one.
        state.interruptShadow = cpu.halted != 0 ? 0 : UInt8(truncatingIfNeeded: cpu.shadow)
        state.nmiBlocked = system.nmiBlocked
        state.nmiPending = system.nmiPending
        return state
    }

    /// Throws unless a CPU could be in this state.
    func check(_ state: VCPUState) throws(InvalidVCPUState) {
        func require(_ condition: Bool, _ what: @autoclosure () -> String) throws(InvalidVCPUState) {
            if !condition { throw InvalidVCPUState(what()) }
        }
        try require(state.generalRegisters.count == 16, "generalRegisters: \(state.generalRegisters.count), not 16")
        try require(state.debugRegisters.count == 6, "debugRegisters: \(state.debugRegisters.count), not 6")
        try require(
            state.xsave.isEmpty || state.xsave.count <= Int(DAVIT_XSAVE_SIZE) && state.xsave.count >= 576,
            "xsave: \(state.xsave.count) bytes")
        try require(state.rflags & ~0x3F_7FD7 == 0, "rflags: reserved bits")
        let cr0 = state.cr0
        try require(cr0 >> 32 == 0, "cr0: reserved bits")
        try require(cr0 & CR0.PG == 0 || cr0 & CR0.PE != 0, "cr0: PG without PE")
        try require(cr0 & CR0.NW == 0 || cr0 & CR0.CD != 0, "cr0: NW without CD")
        try require(
            state.cr4 & ~writableCR4 == 0,
            "cr4: bits that this CPU does not have (0x\(String(state.cr4 & ~writableCR4, radix: 16)))")
        try require(state.efer & ~writableEFER == 0, "efer: bits that this CPU does not have")
        let isLong = state.efer & EFER.LMA != 0
        try require(
            isLong == (state.efer & EFER.LME != 0 && cr0 & CR0.PG != 0), "efer: LMA does not follow from LME and CR0.PG"
        )
        try require(!isLong || state.cr4 & CR4.PAE != 0, "cr4: long mode without PAE")
        try require(state.cr4 & CR4.PCIDE == 0 || isLong, "cr4: PCIDE outside long mode")
        try require(state.cr3 >> physicalAddressBits == 0, "cr3: past the physical address space")
        try require(state.cr8 <= 15, "cr8: \(state.cr8)")
        try require(
            state.xcr0 & ~offeredXCR0 == 0 && state.xcr0 & XCR0.x87 != 0
                && (state.xcr0 & XCR0.AVX == 0 || state.xcr0 & XCR0.SSE != 0), "xcr0: no such set of components")
        try require(
            state.debugRegisters[4] >> 32 == 0 && state.debugRegisters[5] >> 32 == 0, "debugRegisters: reserved bits")
        try require(
            !isLong || state.cs.attributes & SegmentAttributes.long == 0
                || Interpreter.isCanonical(state.rip), "rip: not canonical")
        for (name, base) in [
            ("gdtr", state.gdtr.base), ("idtr", state.idtr.base), ("ldtr", state.ldtr.base), ("tr", state.tr.base),
            ("fs", state.fs.base), ("gs", state.gs.base),
        ] { try require(Interpreter.isCanonical(base), "\(name): base not canonical") }
        try require(state.interruptShadow <= 2, "interruptShadow: \(state.interruptShadow)")
        for (number, value) in state.modelSpecificRegisters {
            try require(
                accepts(msr: number, value), "MSR 0x\(String(number, radix: 16)): unknown, or no such value"
            )
        }
    }

    /// MSRs that a saved state has beside those in fields of their own.
    var savedMSRs: [UInt32] {
        [
            MSR.TSC_ADJUST, MSR.SYSENTER_CS, MSR.SYSENTER_ESP, MSR.SYSENTER_EIP, MSR.PAT, MSR.TSC_DEADLINE, MSR.STAR,
            MSR.LSTAR, MSR.CSTAR, MSR.SFMASK, MSR.KERNEL_GS_BASE, MSR.TSC_AUX, KVMInterface.systemTimeMSR,
            KVMInterface.wallClockMSR, KVMInterface.stealTimeMSR, KVMInterface.endOfInterruptMSR,
        ] + (isAMD ? [] : [MSR.MISC_ENABLE])
            // What has its value after RESET need not be told, and other engines may not know it.
            + storedMSRs.indices.filter { storedValues[$0] != storedMSRs[$0].reset }.map { storedMSRs[$0].number }
    }

    /// The MSR is one of `savedMSRs` (or harmless because it has a field of its own), and can hold the value.
    func accepts(msr number: UInt32, _ value: UInt64) -> Bool {
        switch number {
        case MSR.TSC_ADJUST, MSR.STAR, MSR.TSC_DEADLINE: true
        case MSR.SYSENTER_CS, MSR.SFMASK, MSR.TSC_AUX: value >> 32 == 0
        case MSR.SYSENTER_ESP, MSR.SYSENTER_EIP, MSR.LSTAR, MSR.CSTAR, MSR.KERNEL_GS_BASE: Self.isCanonical(value)
        case MSR.PAT: Self.isPAT(value)
        case MSR.MISC_ENABLE: !isAMD
        case KVMInterface.systemTimeMSR: isSystemTimePlace(value)
        case KVMInterface.wallClockMSR: true
        case KVMInterface.stealTimeMSR: value == 0 || isStealTimePlace(value)
        case KVMInterface.endOfInterruptMSR: isEndOfInterruptPlace(value)
        default: storedMSRs.contains { $0.number == number && ($0.reset == value || value & ~$0.writable == 0) }
        }
    }

    /// Power-on: the state after RESET. vCPUs other than the first wait for a SIPI.
    func reset(waitsForSIPI: Bool) {
        load(VCPUState())
        system.pointee.waitsForSIPI = waitsForSIPI
    }

    /// Takes over a state that was checked.
    func load(_ state: VCPUState) {
        for i in 0..<16 { gpr[i] = state.generalRegisters[i] }
        func set(_ index: davit_segment_index, _ segment: SegmentState) {
            segments[Int(index.rawValue)] = davit_segment(
                base: segment.base, limit: segment.limit, selector: segment.selector,
                attributes: segment.attributes & 0xF0FF)
        }
        set(DAVIT_ES, state.es)
        set(DAVIT_CS, state.cs)
        set(DAVIT_SS, state.ss)
        set(DAVIT_DS, state.ds)
        set(DAVIT_FS, state.fs)
        set(DAVIT_GS, state.gs)
        set(DAVIT_LDTR, state.ldtr)
        set(DAVIT_TR, state.tr)
        cpu.pointee.gdtr = davit_table_register(base: state.gdtr.base, limit: state.gdtr.limit)
        cpu.pointee.idtr = davit_table_register(base: state.idtr.base, limit: state.idtr.limit)
        cpu.pointee.rip = state.rip
        cpu.pointee.rflags = state.rflags | RFLAGS.reserved1
        cpu.pointee.cr0 = state.cr0 | CR0.ET
        cpu.pointee.cr2 = state.cr2
        cpu.pointee.cr3 = state.cr3
        cpu.pointee.cr4 = state.cr4
        cpu.pointee.efer = state.efer
        cpu.pointee.xcr0 = state.xcr0
        let dr = davit_cpu_dr(cpu)
        for i in 0..<4 { dr[i] = state.debugRegisters[i] }
        dr[6] = state.debugRegisters[4] | DR6.fixed
        dr[7] = state.debugRegisters[5] & DR7.writable | DR7.fixed
        loadExtendedState(state.xsave)
        // The level that SS has, as after any transfer; v8086 and real mode have theirs.
        let isProtected = state.cr0 & CR0.PE != 0
        cpu.pointee.cpl =
            !isProtected ? 0 : state.rflags & RFLAGS.VM != 0 ? 3 : UInt32(state.cs.selector & 3)
        cpu.pointee.shadow = UInt32(state.interruptShadow)
        cpu.pointee.halted = state.activity == .halted ? 1 : 0
        system.pointee.waitsForSIPI = state.activity == .waitingForSIPI
        system.pointee.nmiBlocked = state.nmiBlocked
        system.pointee.nmiPending = state.nmiPending
        system.pointee.debugTraps = 0
        loadTimeStamp(state.timeStampCounter)
        loadMSRs(state.modelSpecificRegisters)
        cpu.pointee.apic_base = state.apicBase
        didChangeAPICBase()
        apic?.cr8 = state.cr8
        didChangeState()
        if isProtected && state.cr0 & CR0.PG != 0 && state.cr4 & CR4.PAE != 0 && state.efer & EFER.LMA == 0 {
            try? loadPageDirectoryPointers(cr3: state.cr3)
        }
    }

    private func loadMSRs(_ values: [UInt32: UInt64]) {
        cpu.pointee.pat = values[MSR.PAT] ?? 0x0007_0406_0007_0406
        cpu.pointee.sysenter_cs = values[MSR.SYSENTER_CS] ?? 0
        cpu.pointee.sysenter_esp = values[MSR.SYSENTER_ESP] ?? 0
        cpu.pointee.sysenter_eip = values[MSR.SYSENTER_EIP] ?? 0
        cpu.pointee.star = values[MSR.STAR] ?? 0
        cpu.pointee.lstar = values[MSR.LSTAR] ?? 0
        cpu.pointee.cstar = values[MSR.CSTAR] ?? 0
        cpu.pointee.sfmask = values[MSR.SFMASK] ?? 0
        cpu.pointee.kernel_gs_base = values[MSR.KERNEL_GS_BASE] ?? 0
        cpu.pointee.tsc_aux = values[MSR.TSC_AUX] ?? 0
        // Fast strings.
        cpu.pointee.misc_enable = values[MSR.MISC_ENABLE] ?? 1
        system.pointee.tscAdjust = values[MSR.TSC_ADJUST] ?? 0
        system.pointee.kvmWallClock = values[KVMInterface.wallClockMSR] ?? 0
        system.pointee.kvmSystemTime = 0
        system.pointee.endOfInterruptIsOffered = false
        system.pointee.endOfInterruptPlace = values[KVMInterface.endOfInterruptMSR] ?? 0
        updateFastCalls()
        for (i, register) in storedMSRs.enumerated() { storedValues[i] = values[register.number] ?? register.reset }
        try? writeStealTimePlace(values[KVMInterface.stealTimeMSR] ?? 0)
        try? writeSystemTime(values[KVMInterface.systemTimeMSR] ?? 0)
    }

    /// A counter within a second of what the guest reads anyway is taken to be the same: so all vCPUs keep one offset, and their
    /// counters agree. One that is the host's stays that.
    private func loadTimeStamp(_ counter: UInt64) {
        let difference = Int64(bitPattern: counter &- guestTSC).magnitude
        if difference > cpuid.tscFrequency && !start.sharesCounter {
            cpu.pointee.tsc_offset = counter &- davit_rdtsc()
        }
        apic?.setTSCOffset(cpu.pointee.tsc_offset)
    }

    /// Empty: the state after RESET (SDM vol. 1, 13.4; the control word as FNINIT leaves it).
    private func loadExtendedState(_ bytes: [UInt8]) {
        // Safe: the area has DAVIT_XSAVE_SIZE bytes, and `check` admits no more.
        xsave.initializeMemory(as: UInt8.self, repeating: 0, count: Int(DAVIT_XSAVE_SIZE))
        xsave.storeBytes(of: 0x37F, toByteOffset: 0, as: UInt16.self)
        xsave.storeBytes(of: 0x1F80, toByteOffset: 24, as: UInt32.self)
        if !bytes.isEmpty {
            bytes.withUnsafeBytes { takeImage(UnsafeRawBufferPointer($0)) }
        }
    }
}
