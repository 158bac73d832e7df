import CDavit
import HostLinux
import MachineModel

/// A message with an interrupt number and an eventfd of its own: whoever writes to that sends it (api.rst, 4.75).
final class KVMMessageRoute: InterruptRoute {
    private let routes: KVMRoutes
    private let gsi: Int
    private let event: EventFD

    /// Nil if numbers, descriptors or the kernel's memory are used up.
    init?(_ routes: KVMRoutes) {
        guard let event = try? EventFD(), let gsi = routes.takeGSI() else { return nil }
        self.routes = routes
        self.gsi = gsi
        self.event = event
        if connect(flags: 0) < 0 { return nil }
    }

    deinit {
        _ = connect(flags: UInt32(KVM_IRQFD_FLAG_DEASSIGN))
        routes.giveBack(gsi: gsi)
    }

    private func connect(flags: UInt32) -> Int32 {
        var irqfd = kvm_irqfd()
        irqfd.fd = UInt32(event.descriptor)
        irqfd.gsi = UInt32(gsi)
        irqfd.flags = flags
        return davit_kvm_with(routes.machine.descriptor, DAVIT_KVM_IRQFD, &irqfd)
    }

    func set(_ message: InterruptMessage) -> Bool { routes.set(message, gsi: gsi) }

    func send() { event.signal() }
}
