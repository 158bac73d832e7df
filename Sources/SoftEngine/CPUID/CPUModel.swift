// The CPU that the guest sees: vendor, family, model and brand of the host, its user-level features as far as the engine carries them,
// and the system features that the engine models itself whatever the host has (Intel SDM vol. 2, CPUID; AMD APM vol. 3,
// appendix E). Left out: AVX-512 and all later vector extensions, XSAVES, MWAIT, VMX, SVM, performance counters, v8086 extensions.

import CDavit
import MachineModel
import X86

/// CPUID for every vCPU of a machine, and what follows from it for MSRs and control registers. Constant.
final class CPUModel: Sendable {
    let isAMD: Bool
    let vcpuCount: Int
    /// MAXPHYADDR.
    let physicalAddressBits: UInt64
    /// State components that XCR0 may enable.
    let offeredXCR0: UInt64
    /// Cycles per second of the guest's time-stamp counter: the host's.
    let tscFrequency: UInt64
    private let features: ProcessorFeatures
    /// Without the limit; nil if there is none.
    private let unlimited: CPUModel?

    private let standard: [CPUIDAnswer]
    private let extended: [CPUIDAnswer]
    private let cacheLeaves: [CPUIDAnswer]

    /// `host` answers as the host's CPUID does. `limit`: no features but those that are in this table too, unless it is empty.
    init(
        vcpuCount: Int, tscFrequency: UInt64, features: ProcessorFeatures = .host,
        limit: [CPUIDEntry] = [],
        host: @escaping (_ leaf: UInt32, _ subleaf: UInt32) -> CPUIDAnswer = { CPUIDAnswer.host($0, $1) }
    ) {
        unlimited =
            limit.isEmpty
            ? nil : CPUModel(vcpuCount: vcpuCount, tscFrequency: tscFrequency, features: features, host: host)
        let vendor = host(0, 0)
        // "Auth"enticAMD, "Hygo"nGenuine.
        isAMD = vendor.ebx == 0x6874_7541 || vendor.ebx == 0x6F67_7948
        self.vcpuCount = vcpuCount
        self.tscFrequency = tscFrequency
        self.features = features
        let highestExtended = host(0x8000_0000, 0).eax
        let bits = highestExtended >= 0x8000_0008 ? UInt64(host(0x8000_0008, 0).eax & 0xFF) : 36
        physicalAddressBits = min(max(bits, 36), 52)
        let hasAVX = host(1, 0).ecx >> 28 & 1 != 0
        offeredXCR0 = XCR0.x87 | XCR0.SSE | (hasAVX ? XCR0.AVX : 0)

        let builder = CPUModelBuilder(
            host: host, isAMD: isAMD, vcpuCount: vcpuCount, physicalAddressBits: physicalAddressBits,
            tscFrequency: tscFrequency)
        standard = Self.limited(builder.standardLeaves(), from: 0, by: limit)
        extended = Self.limited(builder.extendedLeaves(), from: 0x8000_0000, by: limit)
        cacheLeaves = builder.cacheLeaves()
    }

    private static func limited(
        _ leaves: [CPUIDAnswer], from first: UInt32, by limit: [CPUIDEntry]
    ) -> [CPUIDAnswer] {
        guard !limit.isEmpty else { return leaves }
        var leaves = leaves
        for i in leaves.indices {
            let leaf = first + UInt32(i)
            let other = limit.first { $0.leaf == leaf && $0.subleaf == 0 } ?? CPUIDEntry(leaf: leaf)
            let features = CPUIDFeatures(leaf: leaf)
            leaves[i].eax &= other.eax | ~features.eax
            leaves[i].ebx &= other.ebx | ~features.ebx
            leaves[i].ecx &= other.ecx | ~features.ecx
            leaves[i].edx &= other.edx | ~features.edx
        }
        return leaves
    }

    /// Bits of APIC IDs that number the vCPUs.
    static func topologyShift(_ count: Int) -> UInt32 {
        var shift: UInt32 = 0
        while 1 << shift < count { shift += 1 }
        return shift
    }

    /// XGETBV with ECX 1 tells which components are in use.
    var hasXINUSE: Bool { standard[0xD].eax & 4 != 0 }

    /// The instructions that this CPUID shows, or would without its limit: translated code is carried out by the host, whatever is shown.
    func instructionFeatures(cpu: UnsafePointer<davit_cpu>) -> InstructionFeatures {
        InstructionFeatures(cpuid: { leaf, subleaf in
            let answer = (self.unlimited ?? self).answer(leaf: leaf, subleaf: subleaf, cpu: cpu, apicID: 0)
            return (answer.eax, answer.ebx, answer.ecx, answer.edx)
        })
    }

    var writableCR4: UInt64 {
        var bits =
            CR4.TSD | CR4.DE | CR4.PSE | CR4.PAE | CR4.MCE | CR4.PGE | CR4.PCE | CR4.OSFXSR | CR4.OSXMMEXCPT
            | CR4.UMIP | CR4.FSGSBASE | CR4.PCIDE | CR4.SMEP | CR4.SMAP
        if standard[1].ecx & CPUIDBits.XSAVE != 0 { bits |= CR4.OSXSAVE }
        return bits
    }

    var writableEFER: UInt64 { EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE }

    /// The answer on one vCPU, whose registers fill in what depends on them.
    func answer(leaf: UInt32, subleaf: UInt32, cpu: UnsafePointer<davit_cpu>, apicID: UInt32) -> CPUIDAnswer {
        switch leaf {
        case 0x4000_0000...0x4000_FFFF: return KVMInterface.cpuid(leaf, tscFrequency: tscFrequency, features)
        case 0x8000_0000...0x8000_FFFF:
            let index = Int(leaf & 0xFFFF)
            guard index < extended.count else { return overflow(subleaf: subleaf, cpu: cpu, apicID: apicID) }
            var answer = extended[index]
            switch leaf {
            case 0x8000_0001:
                if isAMD && cpu.pointee.apic_base & 1 << 11 == 0 { answer.edx &= ~CPUIDBits.APIC }
            case 0x8000_001D where isAMD:
                return subleaf < UInt32(cacheLeaves.count) ? cacheLeaves[Int(subleaf)] : CPUIDAnswer()
            case 0x8000_001E where isAMD:
                answer.eax = apicID
                answer.ebx = apicID & 0xFF
            default: break
            }
            return answer
        default:
            let index = Int(leaf)
            guard index < standard.count else { return overflow(subleaf: subleaf, cpu: cpu, apicID: apicID) }
            return standardAnswer(index, subleaf: subleaf, cpu: cpu, apicID: apicID)
        }
    }

    /// Past the last leaf: AMD's CPUs answer with zeroes, Intel's with their highest basic leaf.
    private func overflow(subleaf: UInt32, cpu: UnsafePointer<davit_cpu>, apicID: UInt32) -> CPUIDAnswer {
        isAMD ? CPUIDAnswer() : standardAnswer(standard.count - 1, subleaf: subleaf, cpu: cpu, apicID: apicID)
    }

    private func standardAnswer(
        _ leaf: Int, subleaf: UInt32, cpu: UnsafePointer<davit_cpu>, apicID: UInt32
    ) -> CPUIDAnswer {
        var answer = standard[leaf]
        switch leaf {
        case 1:
            answer.ebx |= apicID << 24
            if cpu.pointee.cr4 & CR4.OSXSAVE != 0 { answer.ecx |= CPUIDBits.OSXSAVE }
            if cpu.pointee.apic_base & 1 << 11 == 0 { answer.edx &= ~CPUIDBits.APIC }
        case 4:
            return !isAMD && subleaf < UInt32(cacheLeaves.count) ? cacheLeaves[Int(subleaf)] : CPUIDAnswer()
        case 7: if subleaf != 0 { return CPUIDAnswer() }
        case 0xB: return topology(level: subleaf, apicID: apicID)
        case 0xD: return extendedState(subleaf: subleaf, xcr0: cpu.pointee.xcr0)
        case 0x14...0x1F where subleaf != 0: return CPUIDAnswer()
        default: break
        }
        return answer
    }

    /// Leaf 0xB: one thread a core, all cores in one package.
    private func topology(level: UInt32, apicID: UInt32) -> CPUIDAnswer {
        switch level {
        case 0: CPUIDAnswer(eax: 0, ebx: 1, ecx: 1 << 8, edx: apicID)
        case 1:
            CPUIDAnswer(
                eax: Self.topologyShift(vcpuCount), ebx: UInt32(truncatingIfNeeded: vcpuCount), ecx: 2 << 8 | 1,
                edx: apicID)
        default: CPUIDAnswer(ecx: level & 0xFF, edx: apicID)
        }
    }

    /// Leaf 0xD: x87, SSE and AVX in the standard layout.
    private func extendedState(subleaf: UInt32, xcr0: UInt64) -> CPUIDAnswer {
        func size(_ components: UInt64) -> UInt32 { components & XCR0.AVX != 0 ? 832 : 576 }
        switch subleaf {
        case 0:
            return CPUIDAnswer(
                eax: UInt32(truncatingIfNeeded: offeredXCR0), ebx: size(xcr0), ecx: size(offeredXCR0), edx: 0)
        // The compacted layout is the standard one with these components.
        case 1: return CPUIDAnswer(eax: standard[0xD].eax, ebx: size(xcr0))
        case 2 where offeredXCR0 & XCR0.AVX != 0: return CPUIDAnswer(eax: 256, ebx: 576)
        default: return CPUIDAnswer()
        }
    }
}
