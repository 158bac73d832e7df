import CDavit

/// What CPUID returns.
struct CPUIDAnswer: Equatable, BitwiseCopyable, Sendable {
    var eax: UInt32 = 0
    var ebx: UInt32 = 0
    var ecx: UInt32 = 0
    var edx: UInt32 = 0

    static func host(_ leaf: UInt32, _ subleaf: UInt32 = 0) -> CPUIDAnswer {
        let answer = davit_cpuid(leaf, subleaf)
        return CPUIDAnswer(eax: answer.eax, ebx: answer.ebx, ecx: answer.ecx, edx: answer.edx)
    }
}
