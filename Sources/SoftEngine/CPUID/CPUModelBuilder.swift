import X86

/// Single bits of CPUID leaf 1 that depend on the CPU's state.
enum CPUIDBits {
    static let XSAVE: UInt32 = 1 << 26
    static let OSXSAVE: UInt32 = 1 << 27
    static let APIC: UInt32 = 1 << 9
}

/// Makes the constant part of a `CPUModel` out of the host's CPUID.
struct CPUModelBuilder {
    let host: (_ leaf: UInt32, _ subleaf: UInt32) -> CPUIDAnswer
    let isAMD: Bool
    let vcpuCount: Int
    let physicalAddressBits: UInt64
    let tscFrequency: UInt64

    /// The bits given.
    private static func bits(_ numbers: UInt32...) -> UInt32 { numbers.reduce(0) { $0 | 1 << $1 } }

    // Leaf 1, ECX: what the host must have (SSE3 PCLMULQDQ SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND), and
    // what the engine has on any host (PCID x2APIC TSC-deadline, and that it is a hypervisor).
    private static let hostECX = bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30)
    private static let ownECX = bits(17, 21, 24, 31)
    // Leaf 1, EDX: FPU CX8 CMOV CLFSH MMX FXSR SSE SSE2; DE PSE TSC MSR PAE MCE APIC SEP MTRR PGE MCA PAT PSE36.
    private static let hostEDX = bits(0, 8, 15, 19, 23, 24, 25, 26)
    private static let ownEDX = bits(2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 16, 17)
    // Leaf 7, EBX: BMI1 AVX2 BMI2 ERMS RDSEED ADX CLFLUSHOPT CLWB SHA; FSGSBASE TSC_ADJUST SMEP INVPCID SMAP.
    private static let host7EBX = bits(3, 5, 8, 9, 18, 19, 23, 24, 29)
    private static let own7EBX = bits(0, 1, 7, 10, 20)
    // Leaf 7, ECX: UMIP RDPID. EDX: FSRM.
    private static let own7ECX = bits(2, 22)
    private static let host7EDX = bits(4)
    // Leaf 0x80000001, ECX: LAHF ABM SSE4A MISALIGNSSE PREFETCHW. EDX: MMXEXT; SYSCALL NX 1GPAGE RDTSCP LM.
    private static let hostExtendedECX = bits(0, 5, 6, 7, 8)
    private static let hostExtendedEDX = bits(22)
    private static let ownExtendedEDX = bits(11, 20, 26, 27, 29)
    // AMD repeats part of leaf 1's EDX there.
    private static let repeatedEDX = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24)

    private var featureEDX: UInt32 {
        host(1, 0).edx & Self.hostEDX | Self.ownEDX | (vcpuCount > 1 ? 1 << 28 : 0)
    }

    func standardLeaves() -> [CPUIDAnswer] {
        let highest: UInt32 = isAMD ? 0xD : min(max(host(0, 0).eax, 0xD), 0x16)
        var leaves = [CPUIDAnswer](repeating: CPUIDAnswer(), count: Int(highest) + 1)
        leaves[0] = host(0, 0)
        leaves[0].eax = highest
        let features = host(1, 0)
        leaves[1] = CPUIDAnswer(
            eax: features.eax,
            // CLFLUSH lines of 64 bytes.
            ebx: 8 << 8 | UInt32(truncatingIfNeeded: min(1 << CPUModel.topologyShift(vcpuCount), 255)) << 16,
            ecx: features.ecx & Self.hostECX | Self.ownECX, edx: featureEDX)
        if !isAMD { leaves[2] = host(2, 0) }
        // ARAT: the APIC timer never stops.
        leaves[6] = CPUIDAnswer(eax: 1 << 2)
        let structured = host(0, 0).eax >= 7 ? host(7, 0) : CPUIDAnswer()
        leaves[7] = CPUIDAnswer(
            eax: 0, ebx: structured.ebx & Self.host7EBX | Self.own7EBX, ecx: Self.own7ECX,
            edx: structured.edx & Self.host7EDX)
        // Subleaf 1's EAX stands here: XSAVEOPT, XSAVEC, XGETBV with ECX 1.
        leaves[0xD].eax = host(0, 0).eax >= 0xD ? host(0xD, 1).eax & 0b111 : 0
        if highest >= 0x15 {
            // The crystal's frequency is the TSC's, ratio 1.
            leaves[0x15] = CPUIDAnswer(eax: 1, ebx: 1, ecx: UInt32(clamping: tscFrequency))
        }
        if highest >= 0x16 {
            let megahertz = UInt32(clamping: tscFrequency / 1_000_000) & 0xFFFF
            leaves[0x16] = CPUIDAnswer(eax: megahertz, ebx: megahertz, ecx: 100)
        }
        return leaves
    }

    func extendedLeaves() -> [CPUIDAnswer] {
        let hostHighest = host(0x8000_0000, 0).eax
        func hostLeaf(_ leaf: UInt32) -> CPUIDAnswer { leaf <= hostHighest ? host(leaf, 0) : CPUIDAnswer() }
        let highest: UInt32 = isAMD ? 0x21 : 8
        var leaves = [CPUIDAnswer](repeating: CPUIDAnswer(), count: Int(highest) + 1)
        leaves[0] = hostLeaf(0x8000_0000)
        leaves[0].eax = 0x8000_0000 | highest
        let features = hostLeaf(0x8000_0001)
        leaves[1] = CPUIDAnswer(
            eax: features.eax, ebx: isAMD ? features.ebx : 0, ecx: features.ecx & Self.hostExtendedECX,
            edx: features.edx & Self.hostExtendedEDX | Self.ownExtendedEDX)
        for leaf in 2...6 { leaves[leaf] = hostLeaf(0x8000_0000 | UInt32(leaf)) }
        // Invariant TSC.
        leaves[7].edx = 1 << 8
        leaves[8].eax = 48 << 8 | UInt32(physicalAddressBits)
        if isAMD { addAMDLeaves(&leaves, features: features, hostLeaf: hostLeaf) }
        return leaves
    }

    private func addAMDLeaves(
        _ leaves: inout [CPUIDAnswer], features: CPUIDAnswer, hostLeaf: (UInt32) -> CPUIDAnswer
    ) {
        leaves[1].edx |= featureEDX & Self.repeatedEDX
        // CR8 through LOCK MOV CR0, topology leaves; with several cores the legacy way to count them.
        leaves[1].ecx |= Self.bits(4, 22) | (vcpuCount > 1 ? 1 << 1 : 0)
        // CLZERO, and x87 error pointers that XSAVE always saves. SSB_NO, BTC_NO: guest loads and branches are not the host's. CPPC,
        // which Linux misses with a warning on models that have it.
        leaves[8].ebx = hostLeaf(0x8000_0008).ebx & Self.bits(0, 2) | Self.bits(26, 27, 29)
        leaves[8].ecx = CPUModel.topologyShift(vcpuCount) << 12 | UInt32(truncatingIfNeeded: vcpuCount - 1) & 0xFF
        leaves[0x1A] = hostLeaf(0x8000_001A)
        leaves[0x1A].eax &= 0b111
        // LFENCE serializes, VERW clears buffers, null selectors clear the base; SRSO_NO, TSA_SQ_NO and TSA_L1_NO as above.
        leaves[0x21] = CPUIDAnswer(eax: Self.bits(2, 5, 6, 29), ecx: Self.bits(1, 2))
    }

    /// Leaf 4 (Intel) or 0x8000001D (AMD): the host's caches, of which the levels 1 and 2 belong to a core, the rest to all.
    func cacheLeaves() -> [CPUIDAnswer] {
        let leaf: UInt32 = isAMD ? 0x8000_001D : 4
        guard host(leaf & 0x8000_0000, 0).eax >= leaf else { return [] }
        var leaves: [CPUIDAnswer] = []
        while leaves.count < 8 {
            var answer = host(leaf, UInt32(leaves.count))
            guard answer.eax & 0x1F != 0 else { break }
            let sharing = answer.eax >> 5 & 7 <= 2 ? 0 : UInt32(truncatingIfNeeded: vcpuCount - 1) & 0xFFF
            let cores = UInt32(1) << CPUModel.topologyShift(vcpuCount) &- 1
            answer.eax = answer.eax & 0x3FFF | sharing << 14
            if !isAMD { answer.eax |= (cores & 0x3F) << 26 }
            leaves.append(answer)
        }
        return leaves
    }
}
