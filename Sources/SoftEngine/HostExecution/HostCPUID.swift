import CDavit

/// The host's own CPUID.
enum HostCPUID {
    static func query(_ leaf: UInt32, _ subleaf: UInt32 = 0) -> (eax: UInt32, ebx: UInt32, ecx: UInt32, edx: UInt32) {
        let answer = davit_cpuid(leaf, subleaf)
        return (answer.eax, answer.ebx, answer.ecx, answer.edx)
    }

    /// "AuthenticAMD" or its licensee "HygonGenuine".
    static let isAMD: Bool = {
        let vendor = query(0).ebx
        return vendor == 0x6874_7541 || vendor == 0x6F67_7948
    }()
}

extension InstructionFeatures {
    /// What the host's CPU can do.
    static let host = InstructionFeatures(cpuid: { HostCPUID.query($0, $1) })
}
