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
    /// 32-bit code, protected or compatibility mode, with flat CS, SS, DS and ES.
    var is32Bit: Bool
    /// In 32-bit code: FS, or GS, is a writable segment that reaches up to 4 GiB, from whatever base.
    var hasFS = false
    var hasGS = false

    init(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        tlb = cpu.pointee.tlb_mode
        let components = XCR0.x87 | XCR0.SSE | XCR0.AVX
        let controls = CR4.OSFXSR | CR4.OSXSAVE | CR4.OSXMMEXCPT
        isPlain =
            cpu.pointee.cr0 & (CR0.TS | CR0.EM | CR0.NE) == CR0.NE && cpu.pointee.cr4 & (controls | CR4.TSD) == controls
            && cpu.pointee.xcr0 & components == components
        hasSMAP = cpu.pointee.cr4 & CR4.SMAP != 0
        is32Bit = cpu.pointee.code_size == 4
        if is32Bit {
            let segments = davit_cpu_segment(cpu)
            hasFS = Self.isWhole(segments[Int(DAVIT_FS.rawValue)])
            hasGS = Self.isWhole(segments[Int(DAVIT_GS.rawValue)])
        }
    }

    /// Code of this kind is translated at all: 64-bit, or 32-bit as `is32Bit` says, at CPL 0 or 3.
    static func accepts(_ cpu: UnsafeMutablePointer<davit_cpu>) -> Bool {
        guard cpu.pointee.cpl % 3 == 0 else { return false }
        if cpu.pointee.code_size == 8 { return true }
        guard cpu.pointee.code_size == 4, cpu.pointee.cr0 & CR0.PE != 0 else { return false }
        let segments = davit_cpu_segment(cpu)
        let code = segments[Int(DAVIT_CS.rawValue)]
        guard code.base == 0, code.limit == UInt32.max else { return false }
        for number in [DAVIT_SS, DAVIT_DS, DAVIT_ES] {
            let segment = segments[Int(number.rawValue)]
            guard segment.base == 0, isWhole(segment) else { return false }
        }
        // The stack pointer has 32 bits.
        return segments[Int(DAVIT_SS.rawValue)].attributes & 1 << 14 != 0
    }

    /// Present, writable data, expanding upwards to 4 GiB.
    @inline(__always)
    private static func isWhole(_ segment: davit_segment) -> Bool {
        segment.limit == UInt32.max && segment.attributes & 0x9E == 0x92
    }

    /// Bytes of an address, and of what CALL, PUSH and POP move.
    var width: Int32 { is32Bit ? 4 : 8 }
    var addressMask: UInt64 { is32Bit ? 0xFFFF_FFFF : UInt64.max }

    /// A small even number, different for each mode. Jump cache keys are -(RIP + number); entries of two modes never look alike
    /// because their difference changes index bits that equal RIPs have equal (see `davit_cpu.jump_key`).
    var number: Int32 {
        let bits = is32Bit ? (hasFS ? 2 : 1) + (hasGS ? 2 : 0) : 0
        return (Int32(tlb) + (isPlain ? 3 : 0) + (hasSMAP ? 6 : 0) + 12 * Int32(bits)) * 2 + 2
    }

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
