import CDavit
import GuestMemory
import MachineModel

/// Writes that KVM takes itself (api.rst, 4.59 KVM_IOEVENTFD).
final class KVMDoorbells: DoorbellSpace {
    private let machine: KVMVirtualMachine

    init(_ machine: KVMVirtualMachine) { self.machine = machine }

    func attach(_ descriptor: Int32, at address: GuestPhysicalAddress) -> Bool {
        request(descriptor, address, flags: 0) >= 0
    }

    func detach(_ descriptor: Int32, from address: GuestPhysicalAddress) {
        // Fails only for what is not attached.
        _ = request(descriptor, address, flags: 1 << UInt32(kvm_ioeventfd_flag_nr_deassign))
    }

    private func request(_ descriptor: Int32, _ address: GuestPhysicalAddress, flags: UInt32) -> Int32 {
        var ioeventfd = kvm_ioeventfd()
        ioeventfd.addr = address.rawValue
        // Of any width: see KVM_CAP_IOEVENTFD_ANY_LENGTH.
        ioeventfd.len = 0
        ioeventfd.fd = descriptor
        ioeventfd.flags = flags
        return davit_kvm_with(machine.descriptor, DAVIT_KVM_IOEVENTFD, &ioeventfd)
    }
}
