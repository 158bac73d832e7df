import CDavit
import HostLinux
import MachineModel
import X86

extension CPUModel {
    /// All leaves as CPUID shows them on one vCPU after RESET.
    func entries(apicID: UInt32) -> [CPUIDEntry] {
        let cpu = UnsafeMutablePointer<davit_cpu>.allocate(capacity: 1)
        UnsafeMutableRawPointer(cpu).initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<davit_cpu>.size)
        defer { cpu.deallocate() }
        cpu.pointee.apic_base = 1 << 11
        cpu.pointee.xcr0 = XCR0.x87
        func entry(_ leaf: UInt32, _ subleaf: UInt32, _ depends: Bool) -> CPUIDEntry {
            let answer = answer(leaf: leaf, subleaf: subleaf, cpu: cpu, apicID: apicID)
            return CPUIDEntry(
                leaf: leaf, subleaf: subleaf, dependsOnSubleaf: depends, eax: answer.eax, ebx: answer.ebx,
                ecx: answer.ecx, edx: answer.edx)
        }
        /// Subleaves of the leaves that have some.
        func subleaves(_ leaf: UInt32) -> UInt32? {
            switch leaf {
            case 4 where !isAMD, 0x8000_001D where isAMD: 8
            case 7: 1
            case 0xB, 0xD: 3
            default: nil
            }
        }
        var entries: [CPUIDEntry] = []
        for first in [0, 0x4000_0000, 0x8000_0000] as [UInt32] {
            let last = answer(leaf: first, subleaf: 0, cpu: cpu, apicID: apicID).eax
            for leaf in first...max(first, last) {
                if let count = subleaves(leaf) {
                    for subleaf in 0..<count { entries.append(entry(leaf, subleaf, true)) }
                } else {
                    entries.append(entry(leaf, 0, false))
                }
            }
        }
        return entries
    }
}

extension SoftEngine {
    /// Cycles per second of the guests' time-stamp counters: the host's.
    public static var tscFrequency: UInt64 { TSCFrequency.host }

    /// To be called early by who will want `tscFrequency`: what it is measured over begins now, and nobody has to wait for its end.
    public static func beginMeasuring() { _ = TSCFrequency.beginning }

    /// What CPUID says on each vCPU of a machine: for other engines to offer no more, so that their guests can move here.
    public static func processorModel(vcpuCount: Int, features: ProcessorFeatures) -> [[CPUIDEntry]] {
        let model = CPUModel(vcpuCount: vcpuCount, tscFrequency: TSCFrequency.host, features: features)
        return (0..<vcpuCount).map { model.entries(apicID: UInt32(truncatingIfNeeded: $0)) }
    }
}
