/// What CPUID returns for a leaf, or for one subleaf of it.
public struct CPUIDEntry: Equatable, Sendable, BitwiseCopyable {
    public var leaf: UInt32
    public var subleaf: UInt32
    /// ECX chooses among several answers.
    public var dependsOnSubleaf: Bool
    public var eax: UInt32
    public var ebx: UInt32
    public var ecx: UInt32
    public var edx: UInt32

    public init(
        leaf: UInt32, subleaf: UInt32 = 0, dependsOnSubleaf: Bool = false, eax: UInt32 = 0, ebx: UInt32 = 0,
        ecx: UInt32 = 0, edx: UInt32 = 0
    ) {
        self.leaf = leaf
        self.subleaf = subleaf
        self.dependsOnSubleaf = dependsOnSubleaf
        self.eax = eax
        self.ebx = ebx
        self.ecx = ecx
        self.edx = edx
    }
}
