import CDavit
import X86

// KVM's register structures from and to the engines' common state.
extension VCPUState {
    mutating func take(_ regs: kvm_regs) {
        generalRegisters = [
            regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp, regs.rbp, regs.rsi, regs.rdi, regs.r8, regs.r9, regs.r10,
            regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
        ]
        rip = regs.rip
        rflags = regs.rflags
    }

    var regs: kvm_regs {
        let r = generalRegisters
        return kvm_regs(
            rax: r[0], rbx: r[3], rcx: r[1], rdx: r[2], rsi: r[6], rdi: r[7], rsp: r[4], rbp: r[5], r8: r[8], r9: r[9],
            r10: r[10], r11: r[11], r12: r[12], r13: r[13], r14: r[14], r15: r[15], rip: rip,
            rflags: rflags | RFLAGS.reserved1)
    }

    mutating func take(_ sregs: kvm_sregs) {
        cs = SegmentState(sregs.cs)
        ds = SegmentState(sregs.ds)
        es = SegmentState(sregs.es)
        fs = SegmentState(sregs.fs)
        gs = SegmentState(sregs.gs)
        ss = SegmentState(sregs.ss)
        tr = SegmentState(sregs.tr)
        ldtr = SegmentState(sregs.ldt)
        gdtr = TableRegisterState(base: sregs.gdt.base, limit: sregs.gdt.limit)
        idtr = TableRegisterState(base: sregs.idt.base, limit: sregs.idt.limit)
        cr0 = sregs.cr0
        cr2 = sregs.cr2
        cr3 = sregs.cr3
        cr4 = sregs.cr4
        cr8 = sregs.cr8
        efer = sregs.efer
        apicBase = sregs.apic_base
    }

    var sregs: kvm_sregs {
        var sregs = kvm_sregs()
        sregs.cs = cs.kvm
        sregs.ds = ds.kvm
        sregs.es = es.kvm
        sregs.fs = fs.kvm
        sregs.gs = gs.kvm
        sregs.ss = ss.kvm
        sregs.tr = tr.kvm
        sregs.ldt = ldtr.kvm
        sregs.gdt.base = gdtr.base
        sregs.gdt.limit = gdtr.limit
        sregs.idt.base = idtr.base
        sregs.idt.limit = idtr.limit
        sregs.cr0 = cr0 | CR0.ET
        sregs.cr2 = cr2
        sregs.cr3 = cr3
        sregs.cr4 = cr4
        sregs.cr8 = cr8
        sregs.efer = efer
        sregs.apic_base = apicBase
        return sregs
    }

    mutating func take(_ events: kvm_vcpu_events) {
        let shadow = UInt32(events.interrupt.shadow)
        interruptShadow =
            shadow & UInt32(KVM_X86_SHADOW_INT_MOV_SS) != 0 ? 2 : shadow & UInt32(KVM_X86_SHADOW_INT_STI) != 0 ? 1 : 0
        nmiBlocked = events.nmi.masked != 0
        nmiPending = events.nmi.pending != 0
    }

    var isX2APIC: Bool { apicBase & 3 << 10 == 3 << 10 }

    /// KVM has the local APIC's ID at the register's top in x2APIC mode too, where it is the whole register (api.rst, 4.57; SDM vol. 3, 11.12.5.1).
    mutating func setAPICID(_ register: UInt32) {
        for i in 0..<4 { localAPIC[0x20 + i] = UInt8(truncatingIfNeeded: register >> (UInt32(i) * 8)) }
    }

    /// An interrupt that KVM has taken from the local APIC and not delivered yet waits there again (SDM vol. 3, 11.8.4: ISR at 0x100, IRR at
    /// 0x200, 32 vectors in 16 bytes). One of the 8259's is not there, and its device asks again.
    mutating func giveBack(_ vector: UInt8) {
        let place = Int(vector) / 32 * 16 + Int(vector) % 32 / 8
        let bit: UInt8 = 1 << (vector % 8)
        guard localAPIC.count == 4096, localAPIC[0x100 + place] & bit != 0 else { return }
        localAPIC[0x100 + place] &= ~bit
        localAPIC[0x200 + place] |= bit
    }

    /// With no event half delivered.
    var events: kvm_vcpu_events {
        var events = kvm_vcpu_events()
        events.interrupt.shadow = UInt8(
            interruptShadow == 2 ? KVM_X86_SHADOW_INT_MOV_SS : interruptShadow == 1 ? KVM_X86_SHADOW_INT_STI : 0)
        events.nmi.masked = nmiBlocked ? 1 : 0
        events.nmi.pending = nmiPending ? 1 : 0
        events.flags = UInt32(KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW)
        return events
    }
}

extension SegmentState {
    init(_ segment: kvm_segment) {
        var attributes = UInt16(segment.type & 0xF) | UInt16(segment.s & 1) << 4 | UInt16(segment.dpl & 3) << 5
        attributes |= UInt16(segment.present & 1) << 7 | UInt16(segment.avl & 1) << 12 | UInt16(segment.l & 1) << 13
        attributes |= UInt16(segment.db & 1) << 14 | UInt16(segment.g & 1) << 15
        self.init(
            selector: segment.selector, attributes: segment.unusable != 0 ? 0 : attributes, limit: segment.limit,
            base: segment.base)
    }

    var kvm: kvm_segment {
        func bit(_ number: UInt16) -> UInt8 { UInt8(attributes >> number & 1) }
        return kvm_segment(
            base: base, limit: limit, selector: selector, type: UInt8(attributes & 0xF), present: bit(7),
            dpl: UInt8(attributes >> 5 & 3), db: bit(14), s: bit(4), l: bit(13), g: bit(15), avl: bit(12),
            unusable: bit(7) ^ 1, padding: 0)
    }
}

extension kvm_debugregs {
    /// DR0-DR3, DR6, DR7.
    init(_ values: [UInt64]) {
        self.init()
        db = (values[0], values[1], values[2], values[3])
        dr6 = values[4]
        dr7 = values[5]
    }
}

extension kvm_xcrs {
    init(xcr0: UInt64) {
        self.init()
        nr_xcrs = 1
        xcrs.0.value = xcr0
    }
}
