import CDavit
import X86

/// What a unit's code takes for granted of the CPU's state; a unit runs only in the mode that it was translated for.
struct TranslationMode: Equatable, BitwiseCopyable {
    /// Rights of data accesses: enum davit_tlb_mode.
    var tlb: UInt32
    /// MMX, SSE and AVX instructions may run without a check: CR0.TS and EM clear, CR4.OSFXSR set, XCR0 with SSE and AVX.
    var hasVectors: Bool

    init(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        tlb = cpu.pointee.tlb_mode
        let needed = XCR0.x87 | XCR0.SSE | XCR0.AVX
        hasVectors =
            cpu.pointee.cr0 & (CR0.TS | CR0.EM) == 0
            && cpu.pointee.cr4 & (CR4.OSFXSR | CR4.OSXSAVE | CR4.OSXMMEXCPT) == CR4.OSFXSR | CR4.OSXSAVE
                | CR4.OSXMMEXCPT
            && cpu.pointee.xcr0 & needed == needed && cpu.pointee.cr0 & CR0.NE != 0
    }

    /// A small even number, different for each mode. Jump cache keys are -(RIP + number); entries of two modes never look alike
    /// because their difference changes index bits that equal RIPs have equal (see `davit_cpu.jump_key`).
    var number: Int32 { Int32(tlb) * 4 + (hasVectors ? 2 : 0) + 2 }

    var isKernel: Bool { tlb != DAVIT_TLB_USER.rawValue }
}
