import Chipset
import DeviceBus
import GuestMemory
import HostLinux
import MachineModel
import PCI
import Synchronization
import VirtioDevices
import VirtioQueue
import VirtioTransport

/// How a guest reaches a virtio device.
enum VirtioTransportKind: String, CaseIterable, Sendable {
    case pci, mmio
}

/// A board's virtio devices.
final class VirtioSlots: Sendable {
    /// More queues than processors serve nobody; more than this few do.
    private static let maximumQueues = 8

    private struct Slot: Sendable {
        let reset: @Sendable (@escaping @Sendable () -> Void) -> Void
        /// Lets go of what the device has of the host's.
        let close: @Sendable () -> Void
    }

    private struct State: Sendable {
        var slots: [Slot] = []
        var mmioCount = 0
    }

    private let bus: SystemBus
    private let bridge: PCIHostBridge
    private let lines: [SharedIRQLine]
    private let memory: GuestMemory
    private let apics: any InterruptMessageReceiver
    private let doorbells: (any DoorbellSpace)?
    private let log: Log
    /// Signalled when a device has let go.
    private let letGo: EventFD
    /// Guards the list, which grows while the board is built.
    private let state = Mutex(State())

    init(
        bus: SystemBus, bridge: PCIHostBridge, lines: InterruptLines, memory: GuestMemory,
        interrupts: EngineInterrupts, doorbells: (any DoorbellSpace)?, log: Log
    ) throws(SystemError) {
        letGo = try EventFD()
        self.bus = bus
        self.bridge = bridge
        self.memory = memory
        self.doorbells = doorbells
        self.log = log
        typealias Layout = PlatformLayout.VirtioMMIO
        self.lines = (0..<Layout.lineCount).map { SharedIRQLine(lines.pin(Layout.firstGSI + $0)) }
        switch interrupts {
        case .localAPICs(let bus): apics = bus
        case .wholeChip(_, let bus): apics = bus
        }
    }

    func add(_ disk: MachineDisk, cpuCount: Int) throws {
        let device = VirtioBlock(
            disk: disk.device, name: disk.name, serial: disk.serial, queueCount: min(cpuCount, Self.maximumQueues),
            report: log.writeFromGuest)
        try add(device, disk.transport)
    }

    func add(_ network: MachineNetwork, cpuCount: Int) throws {
        let device = VirtioNet(
            port: network.port, name: network.name, mac: network.mac, pairCount: min(cpuCount, Self.maximumQueues))
        try add(device, network.transport)
    }

    func add(_ share: MachineShare) throws {
        try add(VirtioFS(name: share.name, tag: share.tag, server: share.server), .pci)
    }

    /// `close` is called when the board goes, after the device has let go of the guest.
    func add(
        _ device: any VirtioDevice, _ transport: VirtioTransportKind, close: @escaping @Sendable () -> Void = {}
    ) throws {
        let slot: Slot
        switch transport {
        case .pci:
            let function = try VirtioPCI(
                device, on: bridge, apics: apics, doorbells: doorbells, memory: memory, log: log.writeFromGuest)
            slot = Slot(reset: { function.reset($0) }) {
                function.close()
                close()
            }
        case .mmio:
            typealias Layout = PlatformLayout.VirtioMMIO
            let number = state.withLock { state in
                defer { state.mmioCount += 1 }
                return state.mmioCount
            }
            let window = VirtioMMIO(
                device, line: lines[number % Layout.lineCount].makeEnd(), memory: memory, log: log.writeFromGuest)
            try bus.mmio.attach(window, name: device.name, at: Layout.address(number), size: Layout.size)
            slot = Slot(reset: { window.reset($0) }, close: close)
        }
        state.withLock { $0.slots.append(slot) }
    }

    /// Waits until no device touches guest memory any more.
    func detach() {
        for slot in state.withLock({ $0.slots }) {
            slot.reset { [letGo] in letGo.signal() }
            while letGo.drain() == 0 { _ = letGo.wait() }
            slot.close()
        }
    }
}

extension CatalogOption {
    static let transport = choice(
        "transport", "how the guest reaches it", defaultValue: VirtioTransportKind.pci.rawValue,
        of: VirtioTransportKind.allCases.map(\.rawValue))
}

extension ComponentSettings {
    var transport: VirtioTransportKind { VirtioTransportKind(rawValue: text("transport")) ?? .pci }
}
