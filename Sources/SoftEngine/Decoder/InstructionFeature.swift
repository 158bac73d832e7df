/// What an instruction needs the CPU to have, each by the CPUID bit that announces it. An instruction whose feature the guest's
/// CPUID does not show is undefined (or, as for LZCNT and TZCNT, decodes as its older namesake).
enum InstructionFeature: UInt8, CaseIterable {
    /// Every x86-64 CPU has it.
    case base
    case x87, mmx, mmxExtensions, fxsr, sse, sse2, sse3, ssse3, sse41, sse42, sse4a
    case avx, avx2, fma, f16c, aes, pclmulqdq, vaes, vpclmulqdq, sha, gfni
    case bmi1, bmi2, lzcnt, popcnt, movbe, adx
    case cmov, cmpxchg8b, cmpxchg16b, lahf64
    case rdrand, rdseed, rdpid, rdtscp, fsgsbase, invpcid, smap
    case sysenter, syscall, monitor, clflush, clflushopt, clwb, clzero, prefetchw
    case xsave, xsaveopt, xsavec, xsaves
    /// AMD: LOCK MOV CR0 reaches CR8 outside of 64-bit mode.
    case cr8Legacy

    enum CPUIDRegister: UInt8 {
        case eax, ebx, ecx, edx
    }

    /// Where CPUID shows it (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E). `.base` has no such place.
    var cpuid: (leaf: UInt32, subleaf: UInt32, register: CPUIDRegister, bit: UInt8)? {
        switch self {
        case .base: nil
        case .x87: (1, 0, .edx, 0)
        case .cmpxchg8b: (1, 0, .edx, 8)
        case .sysenter: (1, 0, .edx, 11)
        case .cmov: (1, 0, .edx, 15)
        case .clflush: (1, 0, .edx, 19)
        case .mmx: (1, 0, .edx, 23)
        case .fxsr: (1, 0, .edx, 24)
        // The MMX instructions that came with SSE: every CPU with SSE has them (AMD shows them apart as well).
        case .mmxExtensions, .sse: (1, 0, .edx, 25)
        case .sse2: (1, 0, .edx, 26)
        case .sse3: (1, 0, .ecx, 0)
        case .pclmulqdq: (1, 0, .ecx, 1)
        case .monitor: (1, 0, .ecx, 3)
        case .ssse3: (1, 0, .ecx, 9)
        case .fma: (1, 0, .ecx, 12)
        case .cmpxchg16b: (1, 0, .ecx, 13)
        case .sse41: (1, 0, .ecx, 19)
        case .sse42: (1, 0, .ecx, 20)
        case .movbe: (1, 0, .ecx, 22)
        case .popcnt: (1, 0, .ecx, 23)
        case .aes: (1, 0, .ecx, 25)
        case .xsave: (1, 0, .ecx, 26)
        case .avx: (1, 0, .ecx, 28)
        case .f16c: (1, 0, .ecx, 29)
        case .rdrand: (1, 0, .ecx, 30)
        case .fsgsbase: (7, 0, .ebx, 0)
        case .bmi1: (7, 0, .ebx, 3)
        case .avx2: (7, 0, .ebx, 5)
        case .bmi2: (7, 0, .ebx, 8)
        case .invpcid: (7, 0, .ebx, 10)
        case .rdseed: (7, 0, .ebx, 18)
        case .adx: (7, 0, .ebx, 19)
        case .smap: (7, 0, .ebx, 20)
        case .clflushopt: (7, 0, .ebx, 23)
        case .clwb: (7, 0, .ebx, 24)
        case .sha: (7, 0, .ebx, 29)
        case .gfni: (7, 0, .ecx, 8)
        case .vaes: (7, 0, .ecx, 9)
        case .vpclmulqdq: (7, 0, .ecx, 10)
        case .rdpid: (7, 0, .ecx, 22)
        case .xsaveopt: (0xD, 1, .eax, 0)
        case .xsavec: (0xD, 1, .eax, 1)
        case .xsaves: (0xD, 1, .eax, 3)
        case .lahf64: (0x8000_0001, 0, .ecx, 0)
        case .cr8Legacy: (0x8000_0001, 0, .ecx, 4)
        case .lzcnt: (0x8000_0001, 0, .ecx, 5)
        case .sse4a: (0x8000_0001, 0, .ecx, 6)
        case .prefetchw: (0x8000_0001, 0, .ecx, 8)
        case .syscall: (0x8000_0001, 0, .edx, 11)
        case .rdtscp: (0x8000_0001, 0, .edx, 27)
        case .clzero: (0x8000_0008, 0, .ebx, 0)
        }
    }
}

/// A set of instruction features.
struct InstructionFeatures: BitwiseCopyable, Equatable {
    private(set) var bits: UInt64

    static var all: InstructionFeatures { InstructionFeatures(bits: ~0) }
    /// Nothing but what every x86-64 CPU has.
    static var none: InstructionFeatures { InstructionFeatures(bits: 1) }

    private init(bits: UInt64) { self.bits = bits }

    /// The features that a CPUID shows; `cpuid` answers for a leaf and subleaf with EAX, EBX, ECX, EDX.
    init(cpuid: (_ leaf: UInt32, _ subleaf: UInt32) -> (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32)) {
        self = .none
        for feature in InstructionFeature.allCases {
            guard let place = feature.cpuid else { continue }
            // A leaf past the highest one does not answer with zeroes on every CPU.
            guard place.leaf <= cpuid(place.leaf & 0x8000_0000, 0).eax else { continue }
            let answer = cpuid(place.leaf, place.subleaf)
            let register =
                switch place.register {
                case .eax: answer.eax
                case .ebx: answer.ebx
                case .ecx: answer.ecx
                case .edx: answer.edx
                }
            if register >> UInt32(place.bit) & 1 != 0 { insert(feature) }
        }
    }

    @inline(__always)
    func contains(_ feature: InstructionFeature) -> Bool {
        bits >> UInt64(feature.rawValue & 63) & 1 != 0
    }

    mutating func insert(_ feature: InstructionFeature) { bits |= 1 << UInt64(feature.rawValue) }
    mutating func remove(_ feature: InstructionFeature) { bits &= ~(1 << UInt64(feature.rawValue)) }
}
