import CDavit
import MachineModel
import X86

// Model-specific registers (Intel SDM vol. 4, table 2-2; Documentation/virt/kvm/x86/msr.rst).
extension KVMVCPU {
    static let tscMSR: UInt32 = 0x10

    /// MSRs that a saved state has beside those in fields of their own, in the order in which they are written: TSC_ADJUST; SYSENTER_CS, ESP, EIP;
    /// PAT; STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE, TSC_AUX; MTRRs; MCG_STATUS, MCG_CTL; TSC_DEADLINE; KVM's own: clock, asynchronous page
    /// faults, steal time, PV EOI, polling.
    static let savedMSRs: [UInt32] =
        [
            0x3B, 0x174, 0x175, 0x176, 0x277, 0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102,
            0xC000_0103,
        ]
        + Array(0x200...0x20F) + [0x250, 0x258, 0x259] + Array(0x268...0x26F) + [0x2FF, 0x17A, 0x17B, 0x6E0]
        + [0x4B56_4D00, 0x4B56_4D01, 0x4B56_4D06, 0x4B56_4D02, 0x4B56_4D03, 0x4B56_4D04, 0x4B56_4D05]

    var timeStampCounter: UInt64 { Self.readMSRs([Self.tscMSR], of: descriptor)[Self.tscMSR] ?? 0 }

    /// Those of `numbers` that can be read.
    static func readMSRs(_ numbers: [UInt32], of descriptor: Int32) -> [UInt32: UInt64] {
        var values: [UInt32: UInt64] = [:]
        values.reserveCapacity(numbers.count)
        var rest = numbers[...]
        while !rest.isEmpty {
            withMSRTable(rest.map { ($0, 0) }) { table, entries in
                let count = min(Int(max(davit_kvm_with(descriptor, DAVIT_KVM_GET_MSRS, table), 0)), rest.count)
                for i in 0..<count { values[entries[i].index] = entries[i].data }
                // KVM stops at the first that it does not know.
                rest = rest.dropFirst(count + 1)
            }
        }
        return values
    }

    func writeMSRs(_ values: [UInt32: UInt64]) throws(InvalidVCPUState) {
        // In the order of the list: what is not in it (the TSC) comes first.
        let ordered = values.map { ($0.key, $0.value) }.sorted { place(of: $0.0) < place(of: $1.0) }
        var refused: UInt32?
        Self.withMSRTable(ordered) { table, entries in
            let count = Int(max(davit_kvm_with(descriptor, DAVIT_KVM_SET_MSRS, table), 0))
            if count < ordered.count { refused = entries[count].index }
        }
        if let refused {
            throw InvalidVCPUState("MSR 0x\(String(refused, radix: 16)): unknown to KVM, or no such value")
        }
    }

    private func place(of number: UInt32) -> Int { Self.savedMSRs.firstIndex(of: number) ?? -1 }

    private static func withMSRTable(
        _ values: [(UInt32, UInt64)],
        _ body: (_ table: UnsafeMutableRawPointer, _ entries: UnsafeMutablePointer<kvm_msr_entry>) -> Void
    ) {
        let header = MemoryLayout<kvm_msrs>.size
        let stride = MemoryLayout<kvm_msr_entry>.stride
        withUnsafeTemporaryAllocation(byteCount: header + values.count * stride, alignment: 8) { buffer in
            let table = buffer.baseAddress.unsafelyUnwrapped
            table.initializeMemory(as: UInt8.self, repeating: 0, count: buffer.count)
            table.storeBytes(of: UInt32(values.count), as: UInt32.self)
            // Safe: the buffer has room for that many entries behind the header.
            let entries = (table + header).bindMemory(to: kvm_msr_entry.self, capacity: values.count)
            for (i, value) in values.enumerated() {
                entries[i].index = value.0
                entries[i].data = value.1
            }
            body(table, entries)
        }
    }
}
