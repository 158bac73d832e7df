import CDavit
import MachineModel
import X86

/// The processor that the guest sees under KVM.
public struct KVMProcessorModel: Sendable {
    /// What the software engine shows on each vCPU: topology, caches and names are its own, features at most these for `baseline`.
    private let baseline: [[CPUIDEntry]]
    private let features: ProcessorFeatures
    /// Every feature that KVM supports, not only those that the software engine has too.
    private let offersAll: Bool
    /// Cycles per second of the guest's time-stamp counter: the host's.
    let tscFrequency: UInt64

    /// `baseline` by vCPU. With `.baseline` a machine's state may move to the software engine and back.
    public init(
        baseline: [[CPUIDEntry]], tscFrequency: UInt64, features: ProcessorFeatures, isHardwareBacked: Bool
    ) {
        self.features = features
        self.baseline = baseline
        self.tscFrequency = tscFrequency
        offersAll = isHardwareBacked && features == .host
    }

    /// What the guest's kernel has to be told where software runs it and KVM user mode: CPUID there is the host's own, AVX-512 with it, and
    /// the kernel must save what its programs use. `shown` is what KVM shows whatever it was told.
    func kernelEntries(vcpu: Int, shown: [CPUIDEntry]) -> [CPUIDEntry] {
        var table = entries(vcpu: vcpu, supported: shown)
        // Of KVM's own features the clock and steal time: it looks at what others leave in memory (PV EOI) as it is left, not as it is
        // entered, and would not see what software has done in between.
        if let i = table.firstIndex(where: { $0.leaf == 0x4000_0001 }) { table[i].eax &= 1 << 3 | 1 << 5 | 1 << 24 }
        // What other engines do not have the kernel must not switch on; then programs that look at XCR0 leave it alone.
        guard features == .host else { return table }
        guard let head = shown.first(where: { $0.leaf == 0xD && $0.subleaf == 0 }),
            head.eax & UInt32(XCR0.AVX512) == UInt32(XCR0.AVX512),
            let i = table.firstIndex(where: { $0.leaf == 0xD && $0.subleaf == 0 })
        else { return table }
        table[i].eax |= UInt32(XCR0.AVX512)
        table += shown.filter { $0.leaf == 0xD && (5...7).contains($0.subleaf) }
        // AVX512F alone: enough for the kernel to save the state, too little to use it.
        if let i = table.firstIndex(where: { $0.leaf == 7 && $0.subleaf == 0 }) { table[i].ebx |= 1 << 16 }
        return table
    }

    /// The table for one vCPU. `supported` is what KVM says it can.
    func entries(vcpu: Int, supported: [CPUIDEntry]) -> [CPUIDEntry] {
        let own = baseline[vcpu]
        var table: [CPUIDEntry] = []
        let hasXSAVE = features(own, supported, 1).ecx & 1 << 26 != 0
        for entry in own {
            let kvm = supported.first { $0.leaf == entry.leaf && $0.subleaf == entry.subleaf }
            if entry.leaf == 0xD {
                // Without XSAVE there are no components; with all features KVM's leaves stand below.
                if hasXSAVE && !offersAll, let kvm {
                    // Sizes and places stay as they are: those of the components that both have.
                    var entry = entry
                    if entry.subleaf <= 1 { entry.eax &= kvm.eax }
                    table.append(entry)
                }
                continue
            }
            table.append(merge(entry, kvm ?? CPUIDEntry(leaf: entry.leaf)))
        }
        for entry in supported where !table.contains(where: { $0.leaf == entry.leaf && $0.subleaf == entry.subleaf }) {
            // 0x1F is topology again, 4 and 0xB are the machine's own.
            let isFeature = entry.leaf != 0x1F && entry.leaf != 4 && entry.leaf != 0xB
            if offersAll && isFeature && (entry.leaf != 0xD || hasXSAVE) { table.append(entry) }
        }
        if offersAll {
            for leaf in [0, 0x8000_0000] as [UInt32] {
                if let i = table.firstIndex(where: { $0.leaf == leaf }),
                    let kvm = supported.first(where: { $0.leaf == leaf })
                {
                    table[i].eax = max(table[i].eax, kvm.eax)
                }
            }
        }
        return table
    }

    private func features(_ own: [CPUIDEntry], _ supported: [CPUIDEntry], _ leaf: UInt32) -> CPUIDEntry {
        let own = own.first { $0.leaf == leaf } ?? CPUIDEntry(leaf: leaf)
        return merge(own, supported.first { $0.leaf == leaf && $0.subleaf == 0 } ?? CPUIDEntry(leaf: leaf))
    }

    /// Features are what both have, or all of KVM's; everything else is the machine's own.
    private func merge(_ own: CPUIDEntry, _ kvm: CPUIDEntry) -> CPUIDEntry {
        var entry = own
        let features = CPUIDFeatures(leaf: own.leaf)
        func pick(_ own: UInt32, _ kvm: UInt32, _ features: UInt32) -> UInt32 {
            guard features != 0 else { return own }
            return offersAll ? kvm | own & ~features : own & (kvm | ~features)
        }
        entry.eax = pick(own.eax, kvm.eax, features.eax)
        entry.ebx = pick(own.ebx, kvm.ebx, features.ebx)
        entry.ecx = pick(own.ecx, kvm.ecx, features.ecx)
        entry.edx = pick(own.edx, kvm.edx, features.edx)
        // The number of its subleaves goes with them.
        if offersAll && own.leaf == 7 { entry.eax = kvm.eax }
        return entry
    }
}
