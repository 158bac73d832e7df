import CDavit
import MachineModel
import Synchronization

/// What a machine's global system interrupts come to (api.rst, 4.52): pins of the kernel's interrupt controllers, or messages to the local
/// APICs. Those above the I/O APIC's pins are for messages of devices.
final class KVMRoutes: Sendable {
    private struct State {
        var messages: [Int: InterruptMessage] = [:]
        var nextGSI = PlatformLayout.ioapicPinCount
        var freeGSIs: [Int] = []
    }

    let machine: KVMVirtualMachine
    private let pins: [kvm_irq_routing_entry]
    /// The most entries, and the end of the numbers.
    private let limit: Int
    /// Guards the messages, and that the kernel's table follows them in order.
    private let state = Mutex(State())

    /// `limit` is KVM_CAP_IRQ_ROUTING's.
    init(_ machine: KVMVirtualMachine, limit: Int, pins: [kvm_irq_routing_entry]) throws(KVMError) {
        self.machine = machine
        self.limit = limit
        self.pins = pins
        try machine.require("KVM_SET_GSI_ROUTING", store([:]))
    }

    /// A number for a device's message; nil if they are all taken.
    func takeGSI() -> Int? {
        state.withLock { state in
            if let gsi = state.freeGSIs.popLast() { return gsi }
            guard state.nextGSI + pins.count < limit else { return nil }
            defer { state.nextGSI += 1 }
            return state.nextGSI
        }
    }

    func giveBack(gsi: Int) {
        set(nil, gsi: gsi)
        state.withLock { $0.freeGSIs.append(gsi) }
    }

    /// What the interrupt sends from now on, if anything. False if the kernel refuses it; then all is as it was.
    @discardableResult
    func set(_ message: InterruptMessage?, gsi: Int) -> Bool {
        state.withLock { state in
            let before = state.messages[gsi]
            guard message != before else { return true }
            state.messages[gsi] = message
            if store(state.messages) >= 0 { return true }
            state.messages[gsi] = before
            return false
        }
    }

    /// Replaces the kernel's table. 0 or -errno.
    private func store(_ messages: [Int: InterruptMessage]) -> Int32 {
        let header = MemoryLayout<kvm_irq_routing>.size
        let stride = MemoryLayout<kvm_irq_routing_entry>.stride
        let entries = pins + messages.map { kvm_irq_routing_entry(gsi: $0, $1) }
        let table = UnsafeMutableRawPointer.allocate(byteCount: header + entries.count * stride, alignment: 8)
        defer { table.deallocate() }
        table.initializeMemory(as: UInt8.self, repeating: 0, count: header)
        table.storeBytes(of: UInt32(entries.count), as: UInt32.self)
        for (i, entry) in entries.enumerated() {
            table.storeBytes(of: entry, toByteOffset: header + i * stride, as: kvm_irq_routing_entry.self)
        }
        return davit_kvm_with(machine.descriptor, DAVIT_KVM_SET_GSI_ROUTING, table)
    }
}

extension kvm_irq_routing_entry {
    fileprivate init(gsi: Int, _ message: InterruptMessage) {
        self.init()
        self.gsi = UInt32(gsi)
        type = UInt32(KVM_IRQ_ROUTING_MSI)
        u.msi.address_lo = UInt32(truncatingIfNeeded: message.address)
        u.msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
        u.msi.data = message.data
    }
}

/// The kernel's local APICs as devices with message-signalled interrupts see them.
final class KVMMessages: InterruptMessageReceiver {
    private let routes: KVMRoutes

    init(_ routes: KVMRoutes) { self.routes = routes }

    func makeRoute() -> (any InterruptRoute)? { KVMMessageRoute(routes) }

    func deliver(_ message: InterruptMessage) {
        var msi = kvm_msi()
        msi.address_lo = UInt32(truncatingIfNeeded: message.address)
        msi.address_hi = UInt32(truncatingIfNeeded: message.address >> 32)
        msi.data = message.data
        // A message that no vCPU takes is dropped, as on the bus.
        _ = davit_kvm_with(routes.machine.descriptor, DAVIT_KVM_SIGNAL_MSI, &msi)
    }
}
