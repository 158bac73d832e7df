// A machine's interrupt controllers in the kernel (api.rst, 4.24 KVM_CREATE_IRQCHIP, 4.71 KVM_CREATE_PIT2, 7.5 KVM_CAP_SPLIT_IRQCHIP).

import CDavit
import MachineModel

/// Which interrupt controllers are the kernel's.
public enum KVMIRQChip: String, CaseIterable, Sendable {
    /// All of them, and the PIT.
    case kernel
    /// Local APICs only.
    case split
}

extension KVMVirtualMachine {
    /// To be called before vCPUs are made. What it returns has the board's routes.
    func makeInterruptControllers(_ kind: KVMIRQChip, host: KVMHost) throws(KVMError) -> KVMRoutes {
        let limit = host.capability(KVM_CAP_IRQ_ROUTING)
        switch kind {
        case .kernel:
            try require("KVM_CREATE_IRQCHIP", davit_kvm(descriptor, DAVIT_KVM_CREATE_IRQCHIP, 0))
            // The kernel answers at port 0x61 too.
            var configuration = kvm_pit_config()
            configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
            try require("KVM_CREATE_PIT2", davit_kvm_with(descriptor, DAVIT_KVM_CREATE_PIT2, &configuration))
            return try KVMRoutes(self, limit: limit, pins: Self.boardRoutes)
        case .split:
            guard host.capability(KVM_CAP_SPLIT_IRQCHIP) != 0 else {
                throw KVMError("this host's KVM lacks KVM_CAP_SPLIT_IRQCHIP", mend: "use irqchip=kernel")
            }
            var capability = kvm_enable_cap()
            capability.cap = UInt32(KVM_CAP_SPLIT_IRQCHIP)
            // The first global system interrupts are the I/O APIC's pins.
            capability.args.0 = UInt64(PlatformLayout.ioapicPinCount)
            try require("KVM_CAP_SPLIT_IRQCHIP", davit_kvm_with(descriptor, DAVIT_KVM_ENABLE_CAP, &capability))
            return try KVMRoutes(self, limit: limit, pins: [])
        }
    }

    /// As the MADT says: global system interrupts are I/O APIC pins, but for IRQ 0, which is wired to pin 2; ISA's are the 8259s' too.
    private static var boardRoutes: [kvm_irq_routing_entry] {
        func chip(_ gsi: Int, _ chip: Int32, pin: Int) -> kvm_irq_routing_entry {
            var entry = kvm_irq_routing_entry()
            entry.gsi = UInt32(gsi)
            entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
            entry.u.irqchip = kvm_irq_routing_irqchip(irqchip: UInt32(chip), pin: UInt32(pin))
            return entry
        }
        var routes: [kvm_irq_routing_entry] = []
        for gsi in 0..<PlatformLayout.ioapicPinCount {
            if gsi < 8 && gsi != 2 { routes.append(chip(gsi, KVM_IRQCHIP_PIC_MASTER, pin: gsi)) }
            if gsi >= 8 && gsi < 16 { routes.append(chip(gsi, KVM_IRQCHIP_PIC_SLAVE, pin: gsi - 8)) }
            let pin = gsi == PlatformLayout.IRQ.pit ? PlatformLayout.IRQ.pitGSI : gsi
            routes.append(chip(gsi, KVM_IRQCHIP_IOAPIC, pin: pin))
        }
        return routes
    }
}

/// An input of the kernel's interrupt controllers.
final class KVMInterruptLine: IRQLine {
    private let machine: KVMVirtualMachine
    private let gsi: Int

    init(_ machine: KVMVirtualMachine, gsi: Int) {
        self.machine = machine
        self.gsi = gsi
    }

    func set(_ level: Bool) {
        var line = kvm_irq_level()
        line.irq = UInt32(gsi)
        line.level = level ? 1 : 0
        // Cannot fail: the number is one of the board's.
        _ = davit_kvm_with(machine.descriptor, DAVIT_KVM_IRQ_LINE, &line)
    }
}
