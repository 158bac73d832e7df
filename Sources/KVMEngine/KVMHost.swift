// /dev/kvm of this host: whether it can be used, and what it offers (Documentation/virt/kvm/api.rst).

import CDavit
import Glibc
import X86

/// The host's KVM, opened.
public final class KVMHost: Sendable {
    let descriptor: Int32
    /// Of the area that a vCPU shares with the kernel, in bytes.
    let runAreaSize: Int
    /// From `KVM_CHECK_EXTENSION`: what the engine can and need not have.
    let offersSyncRegisters: Bool
    let offersXSAVE2: Bool
    let xsaveSize: Int
    public let memorySlots: Int
    public let maximumVCPUs: Int

    /// Throws what is missing and what helps.
    public init(path: String = "/dev/kvm") throws(KVMError) {
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.refusal(path, errno) }
        self.descriptor = descriptor
        let version = davit_kvm(descriptor, DAVIT_KVM_GET_API_VERSION, 0)
        func extent(_ capability: Int32) -> Int {
            Int(max(davit_kvm(descriptor, DAVIT_KVM_CHECK_EXTENSION, UInt(capability)), 0))
        }
        runAreaSize = Int(max(davit_kvm(descriptor, DAVIT_KVM_GET_VCPU_MMAP_SIZE, 0), 0))
        let needed =
            KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS
        offersSyncRegisters = extent(KVM_CAP_SYNC_REGS) & Int(needed) == Int(needed)
        xsaveSize = max(extent(KVM_CAP_XSAVE2), MemoryLayout<kvm_xsave>.size)
        offersXSAVE2 = extent(KVM_CAP_XSAVE2) > 0
        memorySlots = extent(KVM_CAP_NR_MEMSLOTS)
        maximumVCPUs = max(extent(KVM_CAP_MAX_VCPUS), extent(KVM_CAP_NR_VCPUS))
        // All stored properties are there: from here on `deinit` closes the descriptor.
        guard version >= 0 else { throw KVMError("\(path) is not KVM's device", mend: "use --engine soft") }
        guard version == KVM_API_VERSION else {
            throw KVMError(
                "\(path) has API version \(version), not \(KVM_API_VERSION)",
                mend: "update this host's kernel, or use --engine soft")
        }
        for (capability, name) in Self.required where extent(capability) == 0 {
            throw KVMError("\(path) lacks \(name)", mend: "update this host's kernel, or use --engine soft")
        }
    }

    deinit { close(descriptor) }

    private static let required: [(Int32, String)] = [
        (KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"), (KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"),
        (KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"), (KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"),
        (KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"), (KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"),
        (KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"), (KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"),
        (KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"), (KVM_CAP_XSAVE, "KVM_CAP_XSAVE"),
        (KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"),
    ]

    private static func refusal(_ path: String, _ code: Int32) -> KVMError {
        switch code {
        case ENOENT, ENXIO, ENODEV:
            KVMError(
                "\(path) is not there",
                mend: "load the module (modprobe kvm_intel or kvm_amd), switch virtualization on in the firmware, "
                    + "or use --engine soft")
        case EACCES, EPERM:
            KVMError(
                "this user may not open \(path)",
                mend: "join the group that owns it (usermod -aG kvm NAME), or use --engine soft")
        default:
            KVMError("\(path) cannot be opened (\(String(cString: strerror(code))))", mend: "use --engine soft")
        }
    }

    /// What CPUID says at most under this host's KVM, by a vCPU made for the question: KVM without hardware shows another table than it says
    /// it supports. Empty if there is no KVM that can be used.
    public static var features: [CPUIDEntry] {
        guard let host = try? KVMHost(), let table = try? KVMCPUID.supported(host) else { return [] }
        let machine = davit_kvm(host.descriptor, DAVIT_KVM_CREATE_VM, 0)
        guard machine >= 0 else { return [] }
        defer { close(machine) }
        let vcpu = davit_kvm(machine, DAVIT_KVM_CREATE_VCPU, 0)
        guard vcpu >= 0 else { return [] }
        defer { close(vcpu) }
        guard KVMCPUID.set(table, on: vcpu) >= 0 else { return [] }
        return (try? KVMCPUID.shown(vcpu)) ?? []
    }

    /// The value of a capability, 0 if KVM does not have it.
    func capability(_ number: Int32) -> Int {
        Int(max(davit_kvm(descriptor, DAVIT_KVM_CHECK_EXTENSION, UInt(number)), 0))
    }

    /// True if the processor itself runs guests: VMX or SVM with their module. Without, KVM emulates the guest's ring 0.
    public static var isHardwareBacked: Bool {
        let highest = davit_cpuid(0x8000_0000, 0).eax
        let hasVMX = davit_cpuid(1, 0).ecx & 1 << 5 != 0
        let hasSVM = highest >= 0x8000_0001 && davit_cpuid(0x8000_0001, 0).ecx & 1 << 2 != 0
        func isLoaded(_ module: String) -> Bool { access("/sys/module/\(module)", F_OK) == 0 }
        return hasVMX && isLoaded("kvm_intel") || hasSVM && isLoaded("kvm_amd")
    }
}
