import CDavit
import MachineModel
import X86

// What waits for a vCPU whose kernel software runs is in KVM's hands: interrupts, NMIs, the SIPI that starts it, the end of its HLT. KVM tells by
// being entered. It must not carry out an instruction of the guest's meanwhile: it would do so by its emulator, which leaves a HLT to come into
// effect at a later instruction, and a SYSRET so that user code runs on with software none the wiser. So for a look the next instruction lies
// where no code can be. KVM first delivers what waits, which comes out as KVM_EXIT_SHUTDOWN for want of an interrupt table; else the fetch
// fails, with #GP, which comes out in the same way. Real mode's interrupts go by a table that KVM's emulator knows no limit of: a look is in
// protected mode.
extension KVMVCPU {
    /// What `beginLook` has replaced.
    struct LookedFrom {
        let rip: UInt64
        let rflags: UInt64
        let cr0: UInt64
        let cs: kvm_segment
        let ss: kvm_segment
        let shadow: UInt8
    }

    /// Not canonical, and above every limit that a code segment has during a look.
    private static let nowhere: UInt64 = 0x8000_0000_0000_0000
    private static let beyondLimit: UInt64 = 0x1000

    private var whereItLooks: UInt64 {
        davit_kvm_sync_regs(area).pointee.sregs.efer & EFER.LMA != 0 ? Self.nowhere : Self.beyondLimit
    }

    /// Has the registers that KVM is entered with say that the next instruction is nowhere, at CPL 0, where KVM emulates: with a RIP
    /// that is not canonical the host's processor must not be sent to user mode.
    func beginLook() {
        let sync = davit_kvm_sync_regs(area)
        lookedFrom = LookedFrom(
            rip: sync.pointee.regs.rip, rflags: sync.pointee.regs.rflags, cr0: sync.pointee.sregs.cr0,
            cs: sync.pointee.sregs.cs,
            ss: sync.pointee.sregs.ss, shadow: sync.pointee.events.interrupt.shadow)
        if sync.pointee.sregs.idt.limit != 0 {
            interruptTable = TableRegisterState(base: sync.pointee.sregs.idt.base, limit: sync.pointee.sregs.idt.limit)
            sync.pointee.sregs.idt.limit = 0
        }
        let isLong = sync.pointee.sregs.efer & EFER.LMA != 0
        sync.pointee.regs.rip = whereItLooks
        sync.pointee.regs.rflags &= ~(RFLAGS.TF | RFLAGS.VM)
        sync.pointee.sregs.cr0 |= CR0.PE
        sync.pointee.sregs.cs.l = isLong ? 1 : 0
        sync.pointee.sregs.cs.db = 0
        sync.pointee.sregs.cs.g = 0
        sync.pointee.sregs.cs.limit = 0
        sync.pointee.sregs.cs.dpl = 0
        sync.pointee.sregs.ss.dpl = 0
        area.pointee.kvm_dirty_regs |= UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)
    }

    /// Puts back what `beginLook` has replaced, and forgets the failed fetch. False if there was no look, or the vCPU was started or
    /// reset in it.
    func endLook() -> Bool {
        guard let from = lookedFrom else { return false }
        lookedFrom = nil
        let sync = davit_kvm_sync_regs(area)
        guard sync.pointee.regs.rip == whereItLooks else { return false }
        sync.pointee.regs.rip = from.rip
        sync.pointee.regs.rflags = from.rflags
        sync.pointee.sregs.cr0 = from.cr0
        sync.pointee.sregs.cs = from.cs
        sync.pointee.sregs.ss = from.ss
        sync.pointee.events.exception = .init()
        sync.pointee.events.interrupt.shadow = from.shadow
        area.pointee.kvm_dirty_regs |= UInt64(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS)
        return true
    }

    /// After a look's KVM_EXIT_SHUTDOWN: it came of something that had waited, not of the fetch.
    var isAnythingDelivered: Bool {
        let events = davit_kvm_sync_regs(area).pointee.events
        return events.interrupt.nr != 0 || events.nmi.masked != 0 && !nmiWasBlocked
    }
}
