import GuestMemory
import MachineModel
import Synchronization
import VirtioQueue

/// A virtio device without PCI (virtio 1.2, 4.2), version 2: a window of registers and one interrupt line. Guests find it in the DSDT.
public final class VirtioMMIO: MMIODevice, VirtioInterrupts {
    /// Of the window, in bytes.
    public static let size: UInt64 = 0x200

    private static let magic: UInt32 = 0x7472_6976
    private static let version: UInt32 = 2
    /// "DAVT", which no driver looks at.
    private static let vendor: UInt32 = 0x5456_4144

    private let registers: VirtioRegisters
    private let line: any IRQLine
    /// InterruptStatus. Guards that the line follows it in order.
    private let status = Mutex<UInt32>(0)

    /// `line` is level-triggered. `log` takes lines about drivers that break the rules.
    public init(
        _ device: any VirtioDevice, line: any IRQLine, memory: GuestMemory, log: @escaping @Sendable (String) -> Void
    ) {
        registers = VirtioRegisters(device: device, memory: memory, log: log)
        self.line = line
        registers.connect(self)
    }

    /// The device forgets its driver; `done` is called once it touches guest memory no more.
    public func reset(_ done: @escaping @Sendable () -> Void) { registers.reset(done) }

    func queueInterrupt(vector: UInt16) { raise(UInt32(ISRStatus.queue)) }
    func configurationInterrupt(vector: UInt16) { raise(UInt32(ISRStatus.configuration)) }

    private func raise(_ bit: UInt32) {
        status.withLock { status in
            status |= bit
            line.set(true)
        }
    }

    private func acknowledge(_ bits: UInt32) {
        status.withLock { status in
            status &= ~bits
            if status == 0 { line.set(false) }
        }
    }

    /// Registers are read by four aligned bytes (4.2.2.2), the device's configuration as its fields are.
    public func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        if offset >= MMIORegister.Config {
            return registers.readConfiguration(offset: Int(offset &- MMIORegister.Config), count: width.bytes)
        }
        return width == .four ? UInt64(read(offset)) : 0
    }

    public func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        if offset >= MMIORegister.Config {
            registers.writeConfiguration(offset: Int(offset &- MMIORegister.Config), count: width.bytes, value)
        } else if width == .four {
            write(offset, UInt32(truncatingIfNeeded: value))
        }
    }

    private func read(_ offset: UInt64) -> UInt32 {
        switch offset {
        case MMIORegister.MagicValue: Self.magic
        case MMIORegister.Version: Self.version
        case MMIORegister.DeviceID: UInt32(registers.device.type.rawValue)
        case MMIORegister.VendorID: Self.vendor
        case MMIORegister.DeviceFeatures: registers.deviceFeatures
        case MMIORegister.QueueNumMax: UInt32(registers.queueMaximumSize)
        case MMIORegister.QueueReady: registers.queueIsEnabled ? 1 : 0
        case MMIORegister.QueueReset: registers.queueIsResetting ? 1 : 0
        case MMIORegister.InterruptStatus: status.withLock { $0 }
        case MMIORegister.Status: UInt32(registers.status)
        // There is no shared memory: its length is all ones (4.2.2).
        case MMIORegister.SHMLenLow...MMIORegister.SHMBaseHigh: UInt32.max
        case MMIORegister.ConfigGeneration: UInt32(registers.configurationGeneration)
        default: 0
        }
    }

    private func write(_ offset: UInt64, _ value: UInt32) {
        let half = UInt16(truncatingIfNeeded: value)
        switch offset {
        case MMIORegister.DeviceFeaturesSel: registers.setDeviceFeatureSelect(value)
        case MMIORegister.DriverFeatures: registers.setDriverFeatures(value)
        case MMIORegister.DriverFeaturesSel: registers.setDriverFeatureSelect(value)
        case MMIORegister.QueueSel: registers.setQueueSelect(value > UInt32(UInt16.max) ? UInt16.max : half)
        case MMIORegister.QueueNum: if value <= UInt32(UInt16.max) { registers.setQueueSize(half) }
        case MMIORegister.QueueReady: if value == 1 { registers.enableQueue() }
        case MMIORegister.QueueReset: if value == 1 { registers.resetQueue() }
        // With notification data the queue is in the low half.
        case MMIORegister.QueueNotify: registers.notify(queue: Int(half))
        case MMIORegister.InterruptACK: acknowledge(value)
        case MMIORegister.Status:
            if value == 0 { acknowledge(UInt32.max) }
            registers.setStatus(UInt8(truncatingIfNeeded: value))
        default:
            guard let (part, shift) = area(offset) else { return }
            registers.setQueueArea(part, UInt64(value) << shift, mask: 0xFFFF_FFFF << shift)
        }
    }

    private func area(_ offset: UInt64) -> (WritableKeyPath<QueueSetup, UInt64>, UInt64)? {
        switch offset {
        case MMIORegister.QueueDescLow: (\.descriptorArea, 0)
        case MMIORegister.QueueDescHigh: (\.descriptorArea, 32)
        case MMIORegister.QueueDriverLow: (\.driverArea, 0)
        case MMIORegister.QueueDriverHigh: (\.driverArea, 32)
        case MMIORegister.QueueDeviceLow: (\.deviceArea, 0)
        case MMIORegister.QueueDeviceHigh: (\.deviceArea, 32)
        default: nil
        }
    }
}

/// MMIO device register layout (virtio 1.2, 4.2.2).
enum MMIORegister {
    static let MagicValue: UInt64 = 0x000
    static let Version: UInt64 = 0x004
    static let DeviceID: UInt64 = 0x008
    static let VendorID: UInt64 = 0x00C
    static let DeviceFeatures: UInt64 = 0x010
    static let DeviceFeaturesSel: UInt64 = 0x014
    static let DriverFeatures: UInt64 = 0x020
    static let DriverFeaturesSel: UInt64 = 0x024
    static let QueueSel: UInt64 = 0x030
    static let QueueNumMax: UInt64 = 0x034
    static let QueueNum: UInt64 = 0x038
    static let QueueReady: UInt64 = 0x044
    static let QueueNotify: UInt64 = 0x050
    static let InterruptStatus: UInt64 = 0x060
    static let InterruptACK: UInt64 = 0x064
    static let Status: UInt64 = 0x070
    static let QueueDescLow: UInt64 = 0x080
    static let QueueDescHigh: UInt64 = 0x084
    static let QueueDriverLow: UInt64 = 0x090
    static let QueueDriverHigh: UInt64 = 0x094
    static let QueueDeviceLow: UInt64 = 0x0A0
    static let QueueDeviceHigh: UInt64 = 0x0A4
    static let SHMLenLow: UInt64 = 0x0B0
    static let SHMBaseHigh: UInt64 = 0x0BC
    static let QueueReset: UInt64 = 0x0C0
    static let ConfigGeneration: UInt64 = 0x0FC
    static let Config: UInt64 = 0x100
}
