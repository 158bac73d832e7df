// What CPUID says under KVM: what the host's KVM supports, with the topology of this machine (api.rst, 4.20, 4.46).

import CDavit
import Glibc
import X86

enum KVMCPUID {
    /// Everything that this host's KVM can offer.
    static func supported(_ host: KVMHost) throws(KVMError) -> [CPUIDEntry] {
        try read(host.descriptor, DAVIT_KVM_GET_SUPPORTED_CPUID, "KVM_GET_SUPPORTED_CPUID")
    }

    /// What a vCPU shows its guest.
    static func shown(_ vcpu: Int32) throws(KVMError) -> [CPUIDEntry] {
        try read(vcpu, DAVIT_KVM_GET_CPUID2, "KVM_GET_CPUID2")
    }

    private static func read(
        _ descriptor: Int32, _ request: davit_kvm_request, _ name: String
    ) throws(KVMError) -> [CPUIDEntry] {
        let header = MemoryLayout<kvm_cpuid2>.size
        let stride = MemoryLayout<kvm_cpuid_entry2>.stride
        var capacity = 256
        while capacity <= 4096 {
            let table = UnsafeMutableRawPointer.allocate(byteCount: header + capacity * stride, alignment: 8)
            defer { table.deallocate() }
            table.initializeMemory(as: UInt8.self, repeating: 0, count: header + capacity * stride)
            table.storeBytes(of: UInt32(capacity), as: UInt32.self)
            let result = davit_kvm_with(descriptor, request, table)
            if result == -E2BIG {
                capacity *= 2
                continue
            }
            guard result >= 0 else { throw KVMError(name, result) }
            let count = min(Int(table.load(as: UInt32.self)), capacity)
            return (0..<count).map { i in
                let entry = table.load(fromByteOffset: header + i * stride, as: kvm_cpuid_entry2.self)
                return CPUIDEntry(
                    leaf: entry.function, subleaf: entry.index,
                    dependsOnSubleaf: entry.flags & UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
                    eax: entry.eax, ebx: entry.ebx, ecx: entry.ecx, edx: entry.edx)
            }
        }
        throw KVMError(name, -E2BIG)
    }

    /// Gives a vCPU, which has not run yet, its table. 0 or -errno.
    static func set(_ entries: [CPUIDEntry], on vcpu: Int32) -> Int32 {
        let header = MemoryLayout<kvm_cpuid2>.size
        let stride = MemoryLayout<kvm_cpuid_entry2>.stride
        let table = UnsafeMutableRawPointer.allocate(byteCount: header + entries.count * stride, alignment: 8)
        defer { table.deallocate() }
        table.initializeMemory(as: UInt8.self, repeating: 0, count: header + entries.count * stride)
        table.storeBytes(of: UInt32(entries.count), as: UInt32.self)
        for (i, entry) in entries.enumerated() {
            var raw = kvm_cpuid_entry2()
            raw.function = entry.leaf
            raw.index = entry.subleaf
            raw.flags = entry.dependsOnSubleaf ? UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX) : 0
            raw.eax = entry.eax
            raw.ebx = entry.ebx
            raw.ecx = entry.ecx
            raw.edx = entry.edx
            table.storeBytes(of: raw, toByteOffset: header + i * stride, as: kvm_cpuid_entry2.self)
        }
        return davit_kvm_with(vcpu, DAVIT_KVM_SET_CPUID2, table)
    }
}
