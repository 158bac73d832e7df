/// Which bits of a CPUID leaf's answer say what the processor can do (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E; Linux,
/// Documentation/virt/kvm/x86/cpuid.rst). The others are names, sizes, counts and topology.
public struct CPUIDFeatures: Sendable {
    public let eax: UInt32
    public let ebx: UInt32
    public let ecx: UInt32
    public let edx: UInt32

    private init(eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0, edx: UInt32 = 0) {
        (self.eax, self.ebx, self.ecx, self.edx) = (eax, ebx, ecx, edx)
    }

    public init(leaf: UInt32) {
        let all = UInt32.max
        self =
            switch leaf {
            // HTT says how EBX is to be read.
            case 1: .init(ecx: all, edx: all & ~(1 << 28))
            case 7: .init(ebx: all, ecx: all, edx: all)
            case 0x4000_0001: .init(eax: all)
            // CmpLegacy is topology.
            case 0x8000_0001: .init(ecx: all & ~(1 << 1), edx: all)
            case 0x8000_0007: .init(edx: all)
            case 0x8000_0008: .init(ebx: all)
            case 0x8000_0021: .init(eax: all, ecx: all)
            default: .init()
            }
    }
}
