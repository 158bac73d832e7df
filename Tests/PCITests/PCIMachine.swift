import DavitTesting
import DeviceBus
import GuestMemory
import MachineModel
import PCI
import Synchronization

/// A host bridge on a bus, with what its functions lead to, and a guest's ways to reach it.
struct PCIMachine {
    let control = RecordingMachineControl()
    let bus = SystemBus()
    let lines = (0..<4).map { _ in RecordingIRQLine() }
    let apics = RecordingAPICs()
    let bridge: PCIHostBridge

    init() throws {
        bridge = try PCIHostBridge(
            memory: bus.mmio, memoryWindow: 0xC000_0000..<0xC010_0000, makeLineEnd: { [lines] in lines[$0] })
        try bus.ports.attach(bridge.makePorts(resetControl: RecordingPort()), name: "bridge", at: 0xCF8...0xCFF)
        try bus.mmio.attach(bridge.makeECAM(), name: "ecam", at: GuestPhysicalAddress(0xE000_0000), size: 256 << 20)
    }

    /// Through CONFIG_ADDRESS and CONFIG_DATA.
    func readPort(device: UInt32, register: UInt32, byte: UInt16 = 0, width: AccessWidth = .four) -> UInt32 {
        bus.writePort(0xCF8, width: .four, value: 1 << 31 | device << 11 | register)
        return bus.readPort(0xCFC + byte, width: width)
    }

    /// Through ECAM, on bus 0.
    func read(device: UInt64, _ register: UInt64, _ width: AccessWidth = .four) -> UInt64 {
        bus.readMMIO(GuestPhysicalAddress(0xE000_0000 + device << 15 + register), width: width)
    }

    func write(device: UInt64, _ register: UInt64, _ width: AccessWidth = .four, _ value: UInt64) {
        bus.writeMMIO(GuestPhysicalAddress(0xE000_0000 + device << 15 + register), width: width, value: value)
    }

    func readMemory(_ address: UInt64, _ width: AccessWidth = .four) -> UInt64 {
        bus.readMMIO(GuestPhysicalAddress(address), width: width)
    }

    func writeMemory(_ address: UInt64, _ width: AccessWidth = .four, _ value: UInt64) {
        bus.writeMMIO(GuestPhysicalAddress(address), width: width, value: value)
    }

    /// A function with 4 KiB of memory in BAR 0, as device 1.
    func addMemory(_ name: String = "memory", byte: UInt8 = 0xA5) throws -> PCIFunction {
        try bridge.addFunction(
            PCIIdentity(vendorID: 0x1AF4, deviceID: 0x1042, classCode: 0x01_00_00, revision: 1), name: name,
            bars: [PCIMemoryBAR(index: 0, size: 4096, device: ByteMemory(byte))])
    }
}

/// Answers every byte with the same value.
final class ByteMemory: MMIODevice {
    let byte: UInt8
    init(_ byte: UInt8) { self.byte = byte }

    func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 { 0x0101_0101_0101_0101 &* UInt64(byte) & width.mask }
    func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {}
}

/// Keeps what is written to it.
final class RecordingPort: PortDevice {
    let written = Mutex<[UInt32]>([])

    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { 0x5A }
    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) { written.withLock { $0.append(value) } }
}

/// Keeps the messages that are sent to it, by themselves and by routes.
final class RecordingAPICs: InterruptMessageReceiver {
    /// Data of a message that no route takes.
    static let refused: UInt64 = 0xBAD

    private struct Record {
        var messages: [InterruptMessage] = []
        var routes: [ObjectIdentifier: InterruptMessage] = [:]
        var sent: [UInt32] = []
    }

    private final class Route: InterruptRoute {
        let apics: RecordingAPICs
        init(_ apics: RecordingAPICs) { self.apics = apics }
        deinit { apics.record.withLock { $0.routes[ObjectIdentifier(self)] = nil } }

        func set(_ message: InterruptMessage) -> Bool {
            guard message.data != RecordingAPICs.refused else { return false }
            apics.record.withLock { $0.routes[ObjectIdentifier(self)] = message }
            return true
        }

        func send() {
            apics.record.withLock { record in
                if let message = record.routes[ObjectIdentifier(self)] { record.sent.append(message.data) }
            }
        }
    }

    /// How many routes can be made.
    let room = Atomic<Int>(0)
    private let record = Mutex(Record())
    var messages: [InterruptMessage] { record.withLock { $0.messages } }
    /// What routes send, and what they have sent.
    var routes: [InterruptMessage] { record.withLock { Array($0.routes.values) } }
    var sent: [UInt32] { record.withLock { $0.sent } }

    func deliver(_ message: InterruptMessage) { record.withLock { $0.messages.append(message) } }

    func makeRoute() -> (any InterruptRoute)? {
        room.subtract(1, ordering: .relaxed).oldValue > 0 ? Route(self) : nil
    }
}
