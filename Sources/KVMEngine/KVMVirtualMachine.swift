// One virtual machine of KVM: its memory slots, interrupt controllers and routes (api.rst, 4.35, 4.24, 4.52).

import CDavit
import Glibc
import GuestMemory
import MachineModel
import Synchronization

/// A machine's descriptor and what hangs on it.
final class KVMVirtualMachine: Sendable {
    let descriptor: Int32
    let memory: GuestMemory
    /// Guards the slot at `spareAddress`.
    private let spareSlot = Mutex(())

    /// Where Intel's processors want three pages for real mode, and one more: below the firmware's place, where nothing else is.
    private static let taskStateAddress: UInt = 0xFFFB_D000
    private static let identityMapAddress: UInt64 = 0xFFFB_C000
    /// A page where nothing is.
    private static let spareAddress: UInt64 = 0xFFFB_B000

    init(_ host: KVMHost, memory: GuestMemory) throws(KVMError) {
        self.memory = memory
        var result: Int32
        repeat { result = davit_kvm(host.descriptor, DAVIT_KVM_CREATE_VM, 0) } while result == -EINTR
        guard result >= 0 else { throw KVMError("KVM_CREATE_VM", result) }
        descriptor = result
        try require("KVM_SET_TSS_ADDR", davit_kvm(descriptor, DAVIT_KVM_SET_TSS_ADDR, Self.taskStateAddress))
        var address = Self.identityMapAddress
        try require(
            "KVM_SET_IDENTITY_MAP_ADDR", davit_kvm_with(descriptor, DAVIT_KVM_SET_IDENTITY_MAP_ADDR, &address))
        guard memory.regions.count <= host.memorySlots else {
            throw KVMError(
                "this host's KVM has \(host.memorySlots) memory slots, too few for this machine",
                mend: "use --engine soft")
        }
        for number in memory.regions.indices { try setSlot(number, flags: 0) }
    }

    deinit { close(descriptor) }

    /// Makes the memory slot of a region of RAM, or changes its flags.
    func setSlot(_ number: Int, flags: UInt32) throws(KVMError) {
        let region = memory.regions[number]
        var slot = kvm_userspace_memory_region(
            slot: UInt32(number), flags: flags, guest_phys_addr: region.start.rawValue, memory_size: region.size,
            userspace_addr: UInt64(UInt(bitPattern: memory.base)) + region.start.rawValue)
        try require(
            "KVM_SET_USER_MEMORY_REGION", davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &slot))
    }

    /// The 8259s, the I/O APIC and a local APIC for each vCPU, then the PIT, all in the kernel. To be called before vCPUs are made.
    func makeInterruptControllers() throws(KVMError) {
        try require("KVM_CREATE_IRQCHIP", davit_kvm(descriptor, DAVIT_KVM_CREATE_IRQCHIP, 0))
        // The kernel answers at port 0x61 too.
        var configuration = kvm_pit_config()
        configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
        try require("KVM_CREATE_PIT2", davit_kvm_with(descriptor, DAVIT_KVM_CREATE_PIT2, &configuration))
        try route(Self.boardRoutes)
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

    /// Replaces all routes.
    private func route(_ routes: [kvm_irq_routing_entry]) throws(KVMError) {
        let header = MemoryLayout<kvm_irq_routing>.size
        let stride = MemoryLayout<kvm_irq_routing_entry>.stride
        let table = UnsafeMutableRawPointer.allocate(byteCount: header + routes.count * stride, alignment: 8)
        defer { table.deallocate() }
        table.initializeMemory(as: UInt8.self, repeating: 0, count: header)
        table.storeBytes(of: UInt32(routes.count), as: UInt32.self)
        for (i, entry) in routes.enumerated() {
            table.storeBytes(of: entry, toByteOffset: header + i * stride, as: kvm_irq_routing_entry.self)
        }
        try require("KVM_SET_GSI_ROUTING", davit_kvm_with(descriptor, DAVIT_KVM_SET_GSI_ROUTING, table))
    }

    // MARK: - What stand-ins need

    /// Emulation failures at any privilege level come back from KVM_RUN, instead of some as #UD to the guest.
    func reportEmulationFailures() {
        var capability = kvm_enable_cap()
        capability.cap = UInt32(KVM_CAP_EXIT_ON_EMULATION_FAILURE)
        capability.args.0 = 1
        // Without it the guest sees #UD at CPL 3, as it would without Davit.
        _ = davit_kvm_with(descriptor, DAVIT_KVM_ENABLE_CAP, &capability)
    }

    /// Has KVM forget every translation of guest addresses: its shadow page tables do not follow writes that come from outside. Taking
    /// any memory slot away does that.
    func dropTranslations() {
        var slot = kvm_userspace_memory_region(
            slot: UInt32(memory.regions.count), flags: UInt32(KVM_MEM_READONLY), guest_phys_addr: Self.spareAddress,
            memory_size: GuestMemory.pageSize, userspace_addr: UInt64(UInt(bitPattern: memory.base)))
        spareSlot.withLock { _ in
            _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &slot)
            slot.memory_size = 0
            _ = davit_kvm_with(descriptor, DAVIT_KVM_SET_USER_MEMORY_REGION, &slot)
        }
    }

    func setLine(_ gsi: Int, _ level: Bool) {
        var line = kvm_irq_level()
        line.irq = UInt32(gsi)
        line.level = level ? 1 : 0
        // Cannot fail: the number is one of the board's.
        _ = davit_kvm_with(descriptor, DAVIT_KVM_IRQ_LINE, &line)
    }

    private func require(_ request: String, _ result: Int32) throws(KVMError) {
        if result < 0 { throw KVMError(request, result) }
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

    func set(_ level: Bool) { machine.setLine(gsi, level) }
}

/// The kernel's local APICs as devices with message-signalled interrupts see them.
final class KVMMessages: InterruptMessageReceiver {
    private let machine: KVMVirtualMachine

    init(_ machine: KVMVirtualMachine) { self.machine = machine }

    func deliver(_ message: InterruptMessage) {
        var msi = kvm_msi()
        msi.address_lo = UInt32(truncatingIfNeeded: message.address)
        msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
        msi.data = message.data
        // A message that no vCPU takes is dropped, as on the bus.
        _ = davit_kvm_with(machine.descriptor, DAVIT_KVM_SIGNAL_MSI, &msi)
    }
}
