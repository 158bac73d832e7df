import CDavit
import GuestMemory
import MachineModel
import Synchronization

/// The local APICs of all vCPUs, with the bus between them. Any thread may call; nothing here takes a lock on the way to a vCPU,
/// so that a device may raise an interrupt under its own lock.
// Unchecked: `apics` is filled in `init` and constant from then on; the rest is atomic or immutable.
final class LocalAPICs: LocalAPICBus, @unchecked Sendable {
    let clock: any VMClock
    /// Cycles of the guest's time-stamp counter in a second.
    let tscFrequency: UInt64
    /// The host's time-stamp counter; each APIC adds its vCPU's offset.
    let hostTSC: @Sendable () -> UInt64
    /// By vCPU index, which is the APIC ID.
    private(set) var apics: [LocalAPIC] = []

    private let wakeVCPU: @Sendable (_ index: Int) -> Void
    private let external = Atomic<Bool>(false)
    private let source = Mutex<(any InterruptSource)?>(nil)
    /// Whom a lowest-priority interrupt is offered first.
    private let turn = Atomic<Int>(0)

    /// `wake` makes the vCPU look at its APIC, out of HLT too; any thread calls it, also with devices' locks held: it must not call back.
    init(
        vcpuCount: Int, clock: any VMClock, tscFrequency: UInt64,
        hostTSC: @escaping @Sendable () -> UInt64 = davit_rdtsc,
        wake: @escaping @Sendable (_ index: Int) -> Void
    ) {
        self.clock = clock
        self.tscFrequency = max(tscFrequency, 1)
        self.hostTSC = hostTSC
        wakeVCPU = wake
        for index in 0..<vcpuCount { apics.append(LocalAPIC(index: index, bus: self)) }
    }

    subscript(index: Int) -> LocalAPIC { apics[index] }

    @inline(__always)
    func wake(_ index: Int) { wakeVCPU(index) }

    // MARK: LocalAPICBus

    /// The message's layout: SDM vol. 3, 11.11. Address bits 5-11 carry bits 8-14 of the destination, where a guest with more
    /// than 255 vCPUs finds room (KVM_FEATURE_MSI_EXT_DEST_ID).
    func deliver(_ message: InterruptMessage) {
        guard message.address >> 20 == 0xFEE else { return }
        let destination = UInt32(truncatingIfNeeded: message.address >> 12 & 0xFF | (message.address >> 5 & 0x7F) << 8)
        let mode = APICDeliveryMode(rawValue: UInt8(message.data >> 8 & 7))!
        // A redirection hint asks for the lowest priority among the logical destinations.
        let redirected = message.address & 1 << 3 != 0 && message.address & 1 << 2 != 0 && mode == .fixed
        let isLogical = message.address & 1 << 2 != 0
        deliver(
            APICCommand(
                mode: redirected ? .lowestPriority : mode, vector: UInt8(truncatingIfNeeded: message.data),
                isLogical: isLogical, destination: !isLogical && destination == 0xFF ? .max : destination,
                levelTriggered: message.data & 1 << 15 != 0))
    }

    func setExternalInterrupt(_ level: Bool) {
        let before = external.exchange(level, ordering: .sequentiallyConsistent)
        if level, !before, let boot = apics.first { boot.externalInterruptRose() }
    }

    func connect(_ source: (any InterruptSource)?) {
        self.source.withLock { $0 = source }
    }

    /// Every end of an interrupt is broadcast.
    func setLevelTriggered(_ message: InterruptMessage?, pin: Int) {}

    // MARK: for the APICs

    @inline(__always)
    var externalLevel: Bool { external.load(ordering: .acquiring) }

    /// Nil if no 8259 is there.
    func acknowledgeExternalInterrupt() -> UInt8? {
        // The lock guards the reference only: the 8259 is called without it.
        let source = source.withLock { $0 }
        return source?.acknowledgeExternalInterrupt()
    }

    func broadcastEOI(vector: UInt8) {
        let source = source.withLock { $0 }
        source?.endOfInterrupt(vector: vector)
    }

    /// Whether any APIC has requests for its vCPU.
    var hasRequests: Bool { apics.contains { $0.hasRequests } }

    /// Ends HLT of the vCPU with an APIC ID, which is its index; nothing if there is none.
    func kick(_ id: UInt64) {
        if id < UInt64(apics.count) { apics[Int(id)].acceptKick() }
    }

    /// Delivers to every APIC that the destination names, or to one of them.
    func deliver(_ command: APICCommand) {
        if !command.isLogical, command.destination != .max {
            // The ID is the index. In xAPIC mode it has 8 bits.
            if command.destination < apics.count { deliver(command, to: apics[Int(command.destination)]) }
            return
        }
        if command.mode == .lowestPriority { return deliverToLowestPriority(command) }
        for apic in apics where apic.isAddressed(by: command) { deliver(command, to: apic) }
    }

    func deliver(_ command: APICCommand, to apic: LocalAPIC) {
        switch command.mode {
        case .fixed, .lowestPriority: apic.accept(vector: command.vector, levelTriggered: command.levelTriggered)
        case .NMI: apic.acceptNMI()
        case .INIT: apic.acceptINIT()
        case .startUp: apic.acceptStartUp(vector: command.vector)
        // ExtINT from an I/O APIC pin or MSI: an INTR pulse that the INTA cycle answers, if the 8259 still asks.
        case .external: if apic.index == 0, externalLevel { wake(0) }
        case .SMI, .remoteRead: break
        }
    }

    /// The addressed APIC with the lowest processor priority; among equals they take turns.
    private func deliverToLowestPriority(_ command: APICCommand) {
        let count = apics.count
        guard count > 0 else { return }
        let first = Int(UInt(bitPattern: turn.wrappingAdd(1, ordering: .relaxed).newValue) % UInt(count))
        var best: LocalAPIC?
        var bestPriority = UInt32.max
        for step in 0..<count {
            let apic = apics[(first + step) % count]
            let priority = apic.registers[APICRegister.PPR] >> 4
            if apic.acceptsInterrupts, apic.isAddressed(by: command), priority < bestPriority {
                best = apic
                bestPriority = priority
            }
        }
        if let best { deliver(command, to: best) }
    }
}
