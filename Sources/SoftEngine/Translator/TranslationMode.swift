import CDavit
import X86

/// What a unit's code takes for granted of the CPU's state; a unit runs only in the mode that it was translated for.
struct TranslationMode: Equatable, BitwiseCopyable {
    /// Rights of data accesses: enum davit_tlb_mode.
    var tlb: UInt32
    /// MMX, SSE and AVX instructions and RDTSC run without a check: CR0.TS and EM clear, CR4.OSFXSR set, XCR0 with SSE and AVX,
    /// CR4.TSD clear.
    var isPlain: Bool
    /// CR4.SMAP: STAC and CLAC change the rights of data accesses.
    var hasSMAP: Bool

    init(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        tlb = cpu.pointee.tlb_mode
        let components = XCR0.x87 | XCR0.SSE | XCR0.AVX
        let controls = CR4.OSFXSR | CR4.OSXSAVE | CR4.OSXMMEXCPT
        isPlain =
            cpu.pointee.cr0 & (CR0.TS | CR0.EM | CR0.NE) == CR0.NE && cpu.pointee.cr4 & (controls | CR4.TSD) == controls
            && cpu.pointee.xcr0 & components == components
        hasSMAP = cpu.pointee.cr4 & CR4.SMAP != 0
    }

    /// A small even number, different for each mode. Jump cache keys are -(RIP + number); entries of two modes never look alike
    /// because their difference changes index bits that equal RIPs have equal (see `davit_cpu.jump_key`).
    var number: Int32 { (Int32(tlb) + (isPlain ? 3 : 0) + (hasSMAP ? 6 : 0)) * 2 + 2 }

    /// The mode after SYSCALL (EFLAGS.AC off) or SYSRET.
    func inKernel(_ isKernel: Bool) -> TranslationMode {
        var other = self
        other.tlb =
            !isKernel
            ? DAVIT_TLB_USER.rawValue : hasSMAP ? DAVIT_TLB_KERNEL.rawValue : DAVIT_TLB_KERNEL_AC.rawValue
        return other
    }

    var isKernel: Bool { tlb != DAVIT_TLB_USER.rawValue }
}
