import GuestMemory
import HostLinux
import MachineModel
import PCI
import Synchronization
import VirtioDevices
import VirtioQueue
import VirtioTransport

/// A board's virtio devices.
final class VirtioSlots: Sendable {
    /// More queues than processors serve nobody; more than this few do.
    private static let maximumQueues = 8

    private let memory: GuestMemory
    private let apics: any InterruptMessageReceiver
    private let log: Log
    /// Signalled when a device has let go.
    private let letGo: EventFD
    /// Guards the list, which grows while the board is built.
    private let transports = Mutex<[VirtioPCI]>([])

    init(memory: GuestMemory, interrupts: EngineInterrupts, log: Log) throws(SystemError) {
        letGo = try EventFD()
        self.memory = memory
        self.log = log
        switch interrupts {
        case .localAPICs(let bus): apics = bus
        case .wholeChip(_, let bus): apics = bus
        }
    }

    func add(_ disk: MachineDisk, cpuCount: Int, on bridge: PCIHostBridge) throws(PCIError) {
        let device = VirtioBlock(
            disk: disk.device, name: disk.name, serial: disk.serial, queueCount: min(cpuCount, Self.maximumQueues),
            report: log.writeFromGuest)
        try add(device, on: bridge)
    }

    func add(_ network: MachineNetwork, cpuCount: Int, on bridge: PCIHostBridge) throws(PCIError) {
        let device = VirtioNet(
            port: network.port, name: network.name, mac: network.mac, pairCount: min(cpuCount, Self.maximumQueues))
        try add(device, on: bridge)
    }

    func add(_ device: any VirtioDevice, on bridge: PCIHostBridge) throws(PCIError) {
        let transport = try VirtioPCI(device, on: bridge, apics: apics, memory: memory, log: log.writeFromGuest)
        transports.withLock { $0.append(transport) }
    }

    /// Waits until no device touches guest memory any more.
    func detach() {
        for transport in transports.withLock({ $0 }) {
            transport.reset { [letGo] in letGo.signal() }
            while letGo.drain() == 0 { _ = letGo.wait() }
        }
    }
}
