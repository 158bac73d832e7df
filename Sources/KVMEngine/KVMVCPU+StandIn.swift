import CDavit
import MachineModel
import X86

// Instructions that KVM cannot carry out; and where KVM has no hardware behind it (kvm-pvm) everything but plain user mode: a processor in
// software takes the vCPU over.
//
// Such a KVM runs 64-bit user mode at the host's speed, and all else by its instruction emulator, slowly and not completely; SYSCALL in user
// mode it leaves half done. So it gets no interrupt table (a limit of 0): whatever leaves user mode, an exception, an interrupt, SYSCALL, then comes
// out of KVM_RUN as KVM_EXIT_SHUTDOWN, with the registers as they were, and software carries it out with the real table. What belongs to the
// kernel's interrupt controllers (their registers, most MSRs) software leaves to KVM, by single steps; every slice of software's ends with a look
// whether interrupts wait: see `KVMVCPU+Look.swift`.
//
// Left out: SYSCALL whose handler stands on a page that user mode may fetch from; KVM runs on there at CPL 3.
extension KVMVCPU {
    /// How long software runs before KVM is asked for interrupts, in nanoseconds.
    private static let slice: Int64 = 1_000_000
    /// Failures this close to one another make a cluster, in cycles of the time-stamp counter: less than a millisecond.
    private static let clusterGap: UInt64 = 1_000_000

    /// What is done next.
    enum Turn {
        case kvm
        /// KVM for the one instruction that software has declined.
        case step
        /// KVM for what waits to be delivered, and for no instruction.
        case look
        case software
    }

    /// KVM_EXIT_INTERNAL_ERROR with suberror 1: the instruction at RIP is not for KVM.
    func completeInstruction() -> VCPUExit? {
        counts.emulationFailures &+= 1
        let now = davit_rdtsc()
        let isCluster = now &- lastFailure < Self.clusterGap
        lastFailure = now
        return runSoftware(
            substitution.takesKernel || isCluster ? .untilPlainUserMode : .oneInstruction, cause: .failure)
    }

    /// Why software has the vCPU.
    enum Cause: Equatable {
        case turn
        /// KVM gave up on the instruction at RIP.
        case failure
        /// KVM found no way to deliver something.
        case shutdown
    }

    /// As `run` begins, and after a reset.
    var freshTurn: Turn {
        guard substitution.takesKernel else { return .kvm }
        var mp = kvm_mp_state()
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_MP_STATE, &mp)
        return switch Int32(bitPattern: mp.mp_state) {
        // In plain user mode software gives it back at once.
        case KVM_MP_STATE_RUNNABLE: .software
        case KVM_MP_STATE_HALTED: .look
        // A SIPI starts it with most of the state that it has, and KVM runs on.
        default: .step
        }
    }

    /// After a single step of KVM's. What software asked of KVM by it, such as to keep a clock page, KVM does as it is entered the next time.
    var turnAfterStep: Turn { substitution.takesKernel ? .look : .kvm }

    private var isUserMode: Bool {
        let sregs = davit_kvm_sync_regs(area).pointee.sregs
        return sregs.cr0 & CR0.PE != 0 && sregs.ss.dpl == 3
    }

    /// Has software carry out instructions, and says in `turn` how to go on.
    func runSoftware(_ extent: StandInExtent, cause: Cause = .turn) -> VCPUExit? {
        let parts: Substitution.Parts
        do { parts = try substitution.get() } catch {
            return .failed(report: "no processor in software can stand in for KVM: \(error)\n" + saveState().report)
        }
        let processor = parts.standIn.processors[index]
        var before = readExchanged()
        let event = cause == .shutdown ? takeEvent(&before) : nil
        // At CPL 3 there is nothing but that instruction to do, unless software has all but plain user mode.
        let extent = isUserMode && cause == .failure ? .oneInstruction : extent
        parts.collectWrites()
        do throws(InvalidVCPUState) { try processor.load(before) } catch {
            return .failed(report: "no processor in software can stand in for KVM: \(error)\n" + saveState().report)
        }
        if standInDebugIsStale {
            standInDebugIsStale = false
            processor.setDebug(debug)
        }
        (target.pointee.request, target.pointee.request_bits) = processor.request
        defer { target.pointee.request = nil }
        counts.takeovers &+= 1
        setLook(Self.slice)
        var end = StandInEnd.done
        if cause == .shutdown && event == nil {
            end = processor.run(.oneInstruction, event: nil)
        }
        // A kick that came before `request` was there has left its mark in the area.
        if end == .done && !(cause == .turn && area.pointee.immediate_exit != 0) {
            end = processor.run(extent, event: event)
        } else if end == .done {
            end = .interrupted
        }
        var after = processor.save()
        after.cr8 = before.cr8
        after.apicBase = before.apicBase
        if processor.takeTranslationChange() { translationsChanged = true }
        writeExchanged(after, before: before)
        switch end {
        case .tripleFault: return .tripleFault(report: after.report)
        case .declined:
            counts.declines &+= 1
            if cause == .failure && after.rip == before.rip {
                return .failed(report: "neither KVM nor software can carry the instruction out\n" + after.report)
            }
            turn = substitution.takesKernel ? .step : .kvm
        case .debug(let stop): return .debug(stop)
        case .interrupted: turn = substitution.takesKernel ? .look : .kvm
        case .done:
            if after.activity == .halted {
                var mp = kvm_mp_state()
                mp.mp_state = UInt32(bitPattern: KVM_MP_STATE_HALTED)
                _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_MP_STATE, &mp)
                turn = substitution.takesKernel ? .look : .kvm
            } else {
                turn = substitution.takesKernel && debug.concernsLowerHalf ? .software : .kvm
            }
        }
        return nil
    }

    /// After KVM_EXIT_SHUTDOWN: what KVM could not deliver. Nil if software is to carry out the instruction at RIP, to which `state` is set back:
    /// SYSCALL, INT3, INT n (which this KVM takes for undefined), and what IOPL may allow.
    private func takeEvent(_ state: inout VCPUState) -> StandInEvent? {
        let events = davit_kvm_sync_regs(area).pointee.events
        // Both numbers were 0 before KVM ran: see `VCPUState.events`.
        if events.interrupt.nr != 0 { return .interrupt(vector: events.interrupt.nr) }
        if events.nmi.masked != 0 && !nmiWasBlocked { return .nmi }
        let exception = events.exception
        state.rflags &= ~RFLAGS.RF
        if isUserMode {
            // It has no say in these, and KVM without hardware none either: it does not keep IOPL.
            state.rflags = state.rflags & ~Self.privilegedFlags | userFlags & Self.privilegedFlags
        }
        switch UInt32(exception.nr) {
        case UInt32(ExceptionVector.BP.rawValue):
            // A trap; software raises it as INT3 does.
            state.rip &-= 1
            return nil
        case UInt32(ExceptionVector.PF.rawValue) where isUserMode && isSystemCall(state):
            // SYSCALL has saved RIP and RFLAGS.
            state.rip = state.generalRegisters[GeneralRegister.RCX] &- 2
            state.rflags =
                state.generalRegisters[11] & 0x3F_7FD7 & ~Self.privilegedFlags
                | state.rflags & Self.privilegedFlags
            return nil
        // With the IOPL that KVM has lost there may be no fault.
        case UInt32(ExceptionVector.GP.rawValue) where isUserMode: return nil
        case UInt32(ExceptionVector.UD.rawValue): return nil
        default:
            return .exception(
                vector: exception.nr, errorCode: exception.has_error_code != 0 ? exception.error_code : nil)
        }
    }

    /// What code at CPL 3 cannot change.
    private static let privilegedFlags = RFLAGS.IF | RFLAGS.IOPL | RFLAGS.VM | RFLAGS.VIF | RFLAGS.VIP

    /// It fetches in user mode where SYSCALL goes.
    private func isSystemCall(_ state: VCPUState) -> Bool {
        state.rip == state.modelSpecificRegisters[Self.LSTAR] || state.rip == state.modelSpecificRegisters[Self.CSTAR]
    }

    /// To be called before KVM runs guest code: in user mode KVM must not go by translations that software has changed. For instructions that
    /// it emulates it looks them up anew. Other vCPUs come this way themselves when they serve the guest's shootdown.
    func settleTranslations() {
        guard turn == .kvm else { return }
        defer { shared.machine.willTranslate() }
        guard translationsChanged else { return }
        translationsChanged = false
        counts.translationDrops &+= 1
        shared.machine.dropTranslations()
    }

    /// Gives the vCPU its interrupt table back: its state is looked at, or it is another's turn to run it.
    func settleInterruptTable() {
        guard substitution.takesKernel else { return }
        var sregs = kvm_sregs()
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_SREGS, &sregs)
        guard sregs.idt.limit == 0, sregs.idt.base == interruptTable.base else { return }
        sregs.idt.limit = interruptTable.limit
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_SREGS, &sregs)
    }

    /// Single steps on or off, as `turn` wants it: in a look too, in which INIT and SIPI may come and KVM run on.
    func settleStepping() {
        let wanted = (turn == .step || turn == .look) && substitution.takesKernel
        guard wanted != isStepping else { return }
        isStepping = wanted
        var debug = kvm_guest_debug()
        debug.control = wanted ? UInt32(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP) : 0
        _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_GUEST_DEBUG, &debug)
    }

    // MARK: - The state that is exchanged

    private static let LSTAR: UInt32 = 0xC000_0082
    private static let CSTAR: UInt32 = 0xC000_0083
    /// SYSENTER_CS, ESP, EIP; PAT; STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, TSC_AUX.
    private static let exchangedMSRs: [UInt32] = [
        0x174, 0x175, 0x176, 0x277, 0xC000_0081, LSTAR, CSTAR, 0xC000_0084, 0xC000_0102, 0xC000_0103,
    ]
    /// All that software needs, local APIC and the MSRs that it leaves alone aside.
    private func readExchanged() -> VCPUState {
        var state = VCPUState()
        if !substitution.takesKernel { readSyncRegisters() }
        let sync = davit_kvm_sync_regs(area)
        state.take(sync.pointee.regs)
        state.take(sync.pointee.sregs)
        state.take(sync.pointee.events)
        if state.idtr == TableRegisterState(base: interruptTable.base) { state.idtr = interruptTable }
        var debug = kvm_debugregs()
        _ = davit_kvm_with(descriptor, DAVIT_KVM_GET_DEBUGREGS, &debug)
        state.debugRegisters = [debug.db.0, debug.db.1, debug.db.2, debug.db.3, debug.dr6, debug.dr7]
        if state.cr4 & CR4.OSXSAVE != 0 { state.xcr0 = readXCR0() }
        // A reset processor's image is shorter: with AMX in use software refuses it.
        state.xsave = readXSAVE()
        state.modelSpecificRegisters = Self.readMSRs(Self.exchangedMSRs, of: descriptor)
        state.timeStampCounter = davit_rdtsc() &+ tscOffset
        return state
    }

    /// Into KVM, as far as it has changed.
    private func writeExchanged(_ state: VCPUState, before: VCPUState) {
        let sync = davit_kvm_sync_regs(area)
        sync.pointee.regs = state.regs
        sync.pointee.sregs = state.sregs
        sync.pointee.events = state.events
        interruptTable = state.idtr
        nmiWasBlocked = state.nmiBlocked
        userFlags = state.rflags
        if substitution.takesKernel { sync.pointee.sregs.idt.limit = 0 }
        if substitution.takesKernel {
            area.pointee.kvm_dirty_regs = UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
        } else {
            writeSyncRegisters()
        }
        if state.debugRegisters != before.debugRegisters { writeDebugRegisters(state.debugRegisters) }
        if state.xcr0 != before.xcr0 { writeXCR0(state.xcr0) }
        if state.xsave != before.xsave {
            try? writeXSAVE(state.xsave)
        }
        let changed = state.modelSpecificRegisters.filter { before.modelSpecificRegisters[$0.key] != $0.value }
        if !changed.isEmpty { try? writeMSRs(changed) }
    }
}
