import CDavit
import MachineModel
import Synchronization

/// The kernel's local APICs as the chips of the board see them, where all other interrupt controllers are the board's (irqchip=split).
final class KVMLocalAPICs: LocalAPICBus {
    private struct Connections {
        var source: (any InterruptSource)?
        weak var bootProcessor: KVMVCPU?
    }

    private let messages: KVMMessages
    private let routes: KVMRoutes
    private let external = Atomic<Bool>(false)
    /// Guards who is connected; not held while they are called.
    private let connections = Mutex(Connections())

    init(_ routes: KVMRoutes) {
        self.routes = routes
        messages = KVMMessages(routes)
    }

    /// Whom the 8259 interrupts. To be set before the vCPUs run.
    func setBootProcessor(_ vcpu: KVMVCPU) { connections.withLock { $0.bootProcessor = vcpu } }

    // MARK: for the chips

    func deliver(_ message: InterruptMessage) { messages.deliver(message) }

    func makeRoute() -> (any InterruptRoute)? { messages.makeRoute() }

    func setExternalInterrupt(_ level: Bool) {
        let before = external.exchange(level, ordering: .sequentiallyConsistent)
        // First the level, then the kick: see `KVMVCPU.enter`.
        if level, !before { connections.withLock { $0.bootProcessor }?.kick() }
    }

    func connect(_ source: (any InterruptSource)?) { connections.withLock { $0.source = source } }

    /// The kernel tells of ends of interrupts for which it has a level-triggered route among the first.
    func setLevelTriggered(_ message: InterruptMessage?, pin: Int) { routes.set(message, gsi: pin) }

    // MARK: for the vCPUs

    var externalLevel: Bool { external.load(ordering: .sequentiallyConsistent) }

    /// The vector that the 8259 gives out; nil if there is no 8259 any more.
    func acknowledgeExternalInterrupt() -> UInt8? {
        connections.withLock { $0.source }?.acknowledgeExternalInterrupt()
    }

    func endOfInterrupt(vector: UInt8) { connections.withLock { $0.source }?.endOfInterrupt(vector: vector) }
}

// KVM asks nobody for the vector of an external interrupt: it is handed one when it says that it could deliver it (api.rst, 5: KVM_RUN's
// `ready_for_interrupt_injection` and `request_interrupt_window`; 4.16 KVM_INTERRUPT).
extension KVMVCPU {
    /// The 8259 asks for the vCPU, and whether it can have it is not known.
    var mustAskForReadiness: Bool {
        guard index == 0, let apics = shared.localAPICs, apics.externalLevel else { return false }
        return !hasAskedForReadiness && area.pointee.request_interrupt_window == 0
    }

    /// After KVM_RUN: hands the vector over if the vCPU can take it, else has KVM say when it can.
    func injectExternalInterrupt() {
        guard let apics = shared.localAPICs else { return }
        if apics.externalLevel, area.pointee.ready_for_interrupt_injection != 0,
            let vector = apics.acknowledgeExternalInterrupt()
        {
            var interrupt = kvm_interrupt(irq: UInt32(vector))
            // Cannot fail: KVM has just said so, and no other thread hands vectors over.
            _ = davit_kvm_with(descriptor, DAVIT_KVM_INTERRUPT, &interrupt)
        }
        hasAskedForReadiness = true
        // Where software has the kernel KVM has too little of the guest to know; it is asked each time.
        area.pointee.request_interrupt_window = apics.externalLevel && !substitution.takesKernel ? 1 : 0
    }
}
