import CDavit
import Glibc
import MachineModel
import X86

// Saved state, between KVM's structures and the engines' common one.
extension KVMVCPU {
    func saveState() -> VCPUState {
        var state = VCPUState()
        var regs = kvm_regs()
        var sregs = kvm_sregs()
        var debug = kvm_debugregs()
        var events = kvm_vcpu_events()
        var xcrs = kvm_xcrs()
        var apic = kvm_lapic_state()
        var mp = kvm_mp_state()
        // None of these can fail on a vCPU that exists.
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_REGS, &regs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_SREGS, &sregs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_DEBUGREGS, &debug)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_VCPU_EVENTS, &events)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_XCRS, &xcrs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_LAPIC, &apic)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_MP_STATE, &mp)
        state.take(regs)
        state.take(sregs)
        state.take(events)
        state.debugRegisters = [debug.db.0, debug.db.1, debug.db.2, debug.db.3, debug.dr6, debug.dr7]
        if xcrs.nr_xcrs > 0 { state.xcr0 = xcrs.xcrs.0.value }
        withUnsafeBytes(of: &apic) { page in
            // 1 KiB of registers; the rest of the page has none.
            state.localAPIC = Array(page) + Array(repeating: 0, count: 4096 - page.count)
        }
        if state.isX2APIC { state.setAPICID(UInt32(truncatingIfNeeded: index)) }
        if events.interrupt.injected != 0 && events.interrupt.soft == 0 { state.giveBack(events.interrupt.nr) }
        state.xsave = readXSAVE()
        state.modelSpecificRegisters = Self.readMSRs(Array(resetMSRs.keys), of: descriptor).filter {
            resetMSRs[$0.key] != $0.value
        }
        state.timeStampCounter = timeStampCounter
        state.activity =
            switch Int32(bitPattern: mp.mp_state) {
            case KVM_MP_STATE_HALTED: .halted
            case KVM_MP_STATE_UNINITIALIZED, KVM_MP_STATE_INIT_RECEIVED: .waitingForSIPI
            default: .running
            }
        return state
    }

    func restore(_ state: VCPUState) throws(InvalidVCPUState) {
        guard state.generalRegisters.count == 16 else {
            throw InvalidVCPUState("generalRegisters: \(state.generalRegisters.count), not 16")
        }
        guard state.debugRegisters.count == 6 else {
            throw InvalidVCPUState("debugRegisters: \(state.debugRegisters.count), not 6")
        }
        guard state.xsave.isEmpty || state.xsave.count >= 576 && state.xsave.count <= shared.host.xsaveSize else {
            throw InvalidVCPUState("xsave: \(state.xsave.count) bytes")
        }
        guard state.localAPIC.isEmpty || state.localAPIC.count == 4096 else {
            throw InvalidVCPUState("localAPIC: \(state.localAPIC.count) bytes, not 4096")
        }
        let before = saveState()
        do {
            try load(state)
        } catch {
            // What KVM had accepted before it accepts again.
            try? load(before)
            throw error
        }
    }

    private func load(_ state: VCPUState) throws(InvalidVCPUState) {
        func set(
            _ request: davit_kvm_request, _ what: String, _ argument: UnsafeRawPointer
        ) throws(InvalidVCPUState) {
            let result = davit_kvm_with(descriptor, request, argument)
            if result < 0 { throw InvalidVCPUState("\(what): KVM refuses it (\(String(cString: strerror(-result))))") }
        }
        var sregs = state.sregs
        try set(DAVIT_KVM_SET_SREGS, "segments and control registers", &sregs)
        var regs = state.regs
        try set(DAVIT_KVM_SET_REGS, "general registers", &regs)
        var debug = kvm_debugregs(state.debugRegisters)
        try set(DAVIT_KVM_SET_DEBUGREGS, "debugRegisters", &debug)
        var xcrs = kvm_xcrs(xcr0: state.xcr0)
        // A guest without XSAVE has the one value that it cannot change.
        if state.xcr0 != XCR0.x87 || readXCR0() != XCR0.x87 { try set(DAVIT_KVM_SET_XCRS, "xcr0", &xcrs) }
        try writeXSAVE(state.xsave)
        // The APIC's page is judged by the mode that its base register sets, which came with the control registers.
        var apic = resetAPIC
        if !state.localAPIC.isEmpty {
            var state = state
            if state.isX2APIC { state.setAPICID(UInt32(truncatingIfNeeded: index) << 24) }
            withUnsafeMutableBytes(of: &apic) { $0.copyBytes(from: state.localAPIC.prefix($0.count)) }
        }
        try set(DAVIT_KVM_SET_LAPIC, "localAPIC", &apic)
        // After the APIC: the TSC deadline belongs to its timer's mode.
        var msrs = resetMSRs.merging(state.modelSpecificRegisters) { $1 }
        // A counter within a second of what the guest reads anyway is the same: so all vCPUs keep one offset, and their counters agree.
        let difference = Int64(bitPattern: state.timeStampCounter &- timeStampCounter).magnitude
        if difference > shared.tscFrequency && !shared.sharesCounter { msrs[Self.tscMSR] = state.timeStampCounter }
        try writeMSRs(msrs)
        var events = state.events
        try set(DAVIT_KVM_SET_VCPU_EVENTS, "interruptShadow, nmiBlocked, nmiPending", &events)
        var mp = kvm_mp_state()
        mp.mp_state = UInt32(
            bitPattern: state.activity == .halted
                ? KVM_MP_STATE_HALTED
                : state.activity == .waitingForSIPI ? KVM_MP_STATE_INIT_RECEIVED : KVM_MP_STATE_RUNNABLE)
        try set(DAVIT_KVM_SET_MP_STATE, "activity", &mp)
    }

    /// `kvm_run`'s copies of general, segment and control registers and events, for a vCPU that does not have them kept there.
    func readSyncRegisters() {
        let sync = davit_kvm_sync_regs(area)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_REGS, &sync.pointee.regs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_SREGS, &sync.pointee.sregs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_VCPU_EVENTS, &sync.pointee.events)
    }

    func writeSyncRegisters() {
        let sync = davit_kvm_sync_regs(area)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_SREGS, &sync.pointee.sregs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_REGS, &sync.pointee.regs)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_VCPU_EVENTS, &sync.pointee.events)
    }

    func writeDebugRegisters(_ values: [UInt64]) {
        var debug = kvm_debugregs(values)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_DEBUGREGS, &debug)
    }

    // MARK: - Extended state

    func writeXCR0(_ value: UInt64) {
        var xcrs = kvm_xcrs(xcr0: value)
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_XCRS, &xcrs)
    }

    func readXCR0() -> UInt64 {
        var xcrs = kvm_xcrs()
        let result = davit_kvm_with(descriptor, DAVIT_KVM_GET_XCRS, &xcrs)
        return result >= 0 && xcrs.nr_xcrs > 0 ? xcrs.xcrs.0.value : XCR0.x87
    }

    /// Standard layout. As much of it as the state components in use need.
    func readXSAVE() -> [UInt8] {
        let request = shared.host.offersXSAVE2 ? DAVIT_KVM_GET_XSAVE2 : DAVIT_KVM_GET_XSAVE
        let bytes = [UInt8](unsafeUninitializedCapacity: shared.host.xsaveSize) { buffer, count in
            buffer.initialize(repeating: 0)
            _ = davit_kvm_with(descriptor, request, buffer.baseAddress.unsafelyUnwrapped)
            count = buffer.count
        }
        let inUse = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 512, as: UInt64.self) }
        // x87, SSE and AVX end at 832, AVX-512 at 2688 at most (SDM vol. 1, 13.4, 13.5); what is in its initial state need not be kept.
        let withAVX = XCR0.x87 | XCR0.SSE | XCR0.AVX
        let size = inUse & ~withAVX == 0 ? 1024 : inUse & ~(withAVX | XCR0.AVX512) == 0 ? 2688 : bytes.count
        return Array(bytes.prefix(size))
    }

    func writeXSAVE(_ bytes: [UInt8]) throws(InvalidVCPUState) {
        let size = max(shared.host.xsaveSize, MemoryLayout<kvm_xsave>.size)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        if bytes.isEmpty {
            // After RESET (SDM vol. 1, 13.4; the control word as FNINIT leaves it).
            buffer.storeBytes(of: 0x37F, as: UInt16.self)
            buffer.storeBytes(of: 0x1F80, toByteOffset: 24, as: UInt32.self)
        } else {
            bytes.withUnsafeBytes { buffer.copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: $0.count) }
        }
        let result = davit_kvm_with(descriptor, DAVIT_KVM_SET_XSAVE, buffer)
        if result < 0 {
            throw InvalidVCPUState("xsave: KVM refuses it (\(String(cString: strerror(-result))))")
        }
    }
}
