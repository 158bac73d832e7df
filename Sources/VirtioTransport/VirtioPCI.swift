import GuestMemory
import MachineModel
import PCI
import Synchronization
import VirtioQueue

/// A virtio device as a function on PCI Express (virtio 1.2, 4.1): modern only, with a vector for each queue and one for configuration
/// changes, or INTA# for drivers without MSI-X.
public final class VirtioPCI: MMIODevice, VirtioInterrupts {
    private let registers: VirtioRegisters
    private let msix: MSIXTable
    private let doorbells: QueueDoorbells?

    private struct Pin: Sendable {
        var isr: UInt8 = 0
        weak var function: PCIFunction?
    }

    /// Guards the ISR byte, and that INTA# follows it in order.
    private let pin = Mutex(Pin())

    /// Puts a device on the bridge's bus. With `doorbells` the host's kernel takes notifications, as far as it can. `log` takes lines about drivers
    /// that break the rules.
    public init(
        _ device: any VirtioDevice, on bridge: PCIHostBridge, apics: any InterruptMessageReceiver,
        doorbells space: (any DoorbellSpace)? = nil, memory: GuestMemory, log: @escaping @Sendable (String) -> Void
    ) throws(PCIError) {
        // A host without a thread or descriptors for them does without.
        let doorbells = space.flatMap {
            try? QueueDoorbells(
                $0, name: device.name, count: device.queueSizes.count, stride: VirtioPCILayout.notifyMultiplier,
                notify: device.notify(queue:))
        }
        self.doorbells = doorbells
        registers = VirtioRegisters(device: device, memory: memory, doorbells: doorbells, log: log)
        msix = MSIXTable(count: device.queueSizes.count + 1, bus: apics)
        let identity = PCIIdentity(
            vendorID: VirtioPCIIdentity.vendorID, deviceID: VirtioPCIIdentity.firstDeviceID + device.type.rawValue,
            classCode: device.type.pciClass, revision: VirtioPCIIdentity.revision,
            subsystemVendorID: VirtioPCIIdentity.vendorID,
            subsystemID: VirtioPCIIdentity.firstDeviceID + device.type.rawValue)
        let function = try bridge.addFunction(
            identity, name: device.name,
            bars: [
                PCIMemoryBAR(index: VirtioPCILayout.bar, size: VirtioPCILayout.size, device: self) { address in
                    doorbells?.move(
                        to: address.map { GuestPhysicalAddress($0.rawValue + VirtioPCILayout.notify) })
                }
            ],
            msix: (msix, VirtioPCILayout.msixBAR), capabilities: Self.capabilities)
        pin.withLock { $0.function = function }
        registers.connect(self)
    }

    /// The device forgets its driver, as at power-off; `done` is called once it touches guest memory no more.
    public func reset(_ done: @escaping @Sendable () -> Void) { registers.reset(done) }

    /// Ends the device's thread, if it has one for notifications.
    public func close() { doorbells?.close() }

    // MARK: capabilities

    private static var capabilities: [PCIVendorCapability] {
        typealias Layout = VirtioPCILayout
        return [
            capability(VirtioPCICapability.common, Layout.common, Layout.commonSize),
            capability(VirtioPCICapability.isr, Layout.isr, Layout.isrSize),
            capability(VirtioPCICapability.device, Layout.device, Layout.deviceSize),
            capability(
                VirtioPCICapability.notify, Layout.notify, Layout.notifySize,
                more: word(UInt32(Layout.notifyMultiplier))),
            capability(VirtioPCICapability.window, 0, 0, more: word(0), windowOffset: 16),
        ]
    }

    /// struct virtio_pci_cap (4.1.4) without its first two bytes.
    private static func capability(
        _ type: UInt8, _ offset: UInt64, _ size: UInt64, more: [UInt8] = [], windowOffset: Int? = nil
    ) -> PCIVendorCapability {
        let length = UInt8(16 + more.count)
        // The window's BAR number is the driver's to write.
        let bar = windowOffset == nil ? UInt8(VirtioPCILayout.bar) : 0
        return PCIVendorCapability(
            body: [length, type, bar, 0, 0, 0] + word(UInt32(offset)) + word(UInt32(size)) + more,
            windowOffset: windowOffset)
    }

    private static func word(_ value: UInt32) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    // MARK: interrupts

    func queueInterrupt(vector: UInt16) { interrupt(ISRStatus.queue, vector) }

    func configurationInterrupt(vector: UInt16) { interrupt(ISRStatus.configuration, vector) }

    private func interrupt(_ bit: UInt8, _ vector: UInt16) {
        if msix.isEnabled { return msix.send(Int(vector)) }
        pin.withLock { pin in
            pin.isr |= bit
            pin.function?.setInterrupt(true)
        }
    }

    /// Reading takes the interrupt back (4.1.4.5).
    private func takeISR() -> UInt8 {
        pin.withLock { pin in
            defer {
                pin.isr = 0
                pin.function?.setInterrupt(false)
            }
            return pin.isr
        }
    }

    // MARK: the memory BAR

    public func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        typealias Layout = VirtioPCILayout
        switch offset {
        case Layout.common..<Layout.common + Layout.commonSize: return readCommon(offset &- Layout.common, width)
        case Layout.isr: return UInt64(takeISR())
        case Layout.device..<Layout.device + Layout.deviceSize:
            return registers.readConfiguration(offset: Int(offset &- Layout.device), count: width.bytes)
        default: return 0
        }
    }

    public func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        typealias Layout = VirtioPCILayout
        switch offset {
        case Layout.notify..<Layout.notify + Layout.notifySize:
            registers.notify(queue: Int((offset &- Layout.notify) / Layout.notifyMultiplier))
        case Layout.common..<Layout.common + Layout.commonSize: writeCommon(offset &- Layout.common, width, value)
        case Layout.device..<Layout.device + Layout.deviceSize:
            registers.writeConfiguration(offset: Int(offset &- Layout.device), count: width.bytes, value)
        default: break
        }
    }

    /// A field is read whole, 64-bit ones also by halves; all else reads as zero (4.1.3.1).
    private func readCommon(_ offset: UInt64, _ width: AccessWidth) -> UInt64 {
        typealias Field = CommonConfiguration
        switch (offset, width) {
        case (Field.device_feature_select, .four): return UInt64(registers.deviceFeatureSelect)
        case (Field.device_feature, .four): return UInt64(registers.deviceFeatures)
        case (Field.driver_feature_select, .four): return UInt64(registers.driverFeatureSelect)
        case (Field.driver_feature, .four): return UInt64(registers.driverFeatures)
        case (Field.config_msix_vector, .two): return UInt64(registers.configurationVector)
        case (Field.num_queues, .two): return UInt64(registers.queueCount)
        case (Field.device_status, .one): return UInt64(registers.status)
        case (Field.config_generation, .one): return UInt64(registers.configurationGeneration)
        case (Field.queue_select, .two): return UInt64(registers.queueSelect)
        case (Field.queue_size, .two): return UInt64(registers.queueSize)
        case (Field.queue_msix_vector, .two): return UInt64(registers.queueVector)
        case (Field.queue_enable, .two): return registers.queueIsEnabled ? 1 : 0
        case (Field.queue_reset, .two): return registers.queueIsResetting ? 1 : 0
        // Each queue's register is at its own number.
        case (Field.queue_notify_off, .two): return UInt64(registers.queueSelect)
        default:
            guard let (part, shift) = area(offset, width) else { return 0 }
            return registers.queueSetup[keyPath: part] >> shift & width.mask
        }
    }

    private func writeCommon(_ offset: UInt64, _ width: AccessWidth, _ value: UInt64) {
        typealias Field = CommonConfiguration
        let half = UInt16(truncatingIfNeeded: value)
        switch (offset, width) {
        case (Field.device_feature_select, .four): registers.setDeviceFeatureSelect(UInt32(truncatingIfNeeded: value))
        case (Field.driver_feature_select, .four): registers.setDriverFeatureSelect(UInt32(truncatingIfNeeded: value))
        case (Field.driver_feature, .four): registers.setDriverFeatures(UInt32(truncatingIfNeeded: value))
        case (Field.config_msix_vector, .two): registers.setConfigurationVector(half, limit: msix.count)
        case (Field.device_status, .one): registers.setStatus(UInt8(truncatingIfNeeded: value))
        case (Field.queue_select, .two): registers.setQueueSelect(half)
        case (Field.queue_size, .two): registers.setQueueSize(half)
        case (Field.queue_msix_vector, .two): registers.setQueueVector(half, limit: msix.count)
        case (Field.queue_enable, .two): if half == 1 { registers.enableQueue() }
        case (Field.queue_reset, .two): if half == 1 { registers.resetQueue() }
        default:
            guard let (part, shift) = area(offset, width) else { return }
            registers.setQueueArea(part, value << shift, mask: width.mask << shift)
        }
    }

    /// Which of a queue's addresses an access is for, and how far up in it.
    private func area(_ offset: UInt64, _ width: AccessWidth) -> (WritableKeyPath<QueueSetup, UInt64>, UInt64)? {
        typealias Field = CommonConfiguration
        guard width == .eight && offset & 7 == 0 || width == .four && offset & 3 == 0 else { return nil }
        let shift = (offset & 4) * 8
        switch offset & ~7 {
        case Field.queue_desc: return (\.descriptorArea, shift)
        case Field.queue_driver: return (\.driverArea, shift)
        case Field.queue_device: return (\.deviceArea, shift)
        default: return nil
        }
    }
}

extension VirtioDeviceType {
    /// Base class, sub-class and interface that guests expect of the device's kind.
    fileprivate var pciClass: UInt32 {
        switch self {
        case .network: 0x02_00_00
        case .block: 0x01_00_00
        case .console: 0x07_80_00
        case .vsock: 0x02_80_00
        case .fileSystem: 0x01_80_00
        case .entropy, .balloon: 0x00_FF_00
        }
    }
}
