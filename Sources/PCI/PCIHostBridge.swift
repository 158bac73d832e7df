import GuestMemory
import MachineModel
import Synchronization

/// The root of PCI Express: bus 0 with the bridge itself as device 0, reached through configuration mechanism 1 (PCI 3.0, 3.2.2.3.2)
/// and the memory-mapped ECAM (PCI Express 5.0, 7.2.2).
///
/// It owns the ports 0xCF8 to 0xCFF and hands byte accesses at 0xCF9 to the reset control register.
public final class PCIHostBridge: Sendable {
    /// Intel's virtual host bridge, of which no driver expects more than its header.
    private static let identity = PCIIdentity(vendorID: 0x8086, deviceID: 0x0D57, classCode: 0x06_00_00)

    private let bus = PCIBus()
    /// Weak, since the bridge's configuration space is a device there.
    private weak let memory: (any MMIOSpace)?
    private let makeLineEnd: @Sendable (_ line: Int) -> any IRQLine
    /// Guards the next address to hand out for a BAR, and the end of what there is.
    private let freeMemory: Mutex<(next: UInt64, end: UInt64)>

    /// BARs get addresses in `memoryWindow` of `memory`. `makeLineEnd` gives one more end of the four lines (0 to 3) that functions share.
    public init(
        memory: any MMIOSpace, memoryWindow: Range<UInt64>,
        makeLineEnd: @escaping @Sendable (_ line: Int) -> any IRQLine
    ) throws(PCIError) {
        self.memory = memory
        self.makeLineEnd = makeLineEnd
        freeMemory = Mutex((memoryWindow.lowerBound, memoryWindow.upperBound))
        bus.insert(try PCIFunction(Self.identity, name: "host bridge", isExpress: false, in: memory), at: 0)
    }

    /// Puts a function on bus 0 at the first free device number.
    @discardableResult
    public func addFunction(
        _ identity: PCIIdentity, name: String, bars: [PCIMemoryBAR], msix: (table: MSIXTable, bar: Int)? = nil,
        capabilities: [PCIVendorCapability] = []
    ) throws(PCIError) -> PCIFunction {
        guard let device = bus.firstFree else { throw .busFull(name) }
        guard let memory else { throw .noPlace(name) }
        let line = PlatformLayout.PCI.line(device: device, pin: 0)
        let function = try PCIFunction(
            identity, name: name, bars: bars, msix: msix, capabilities: capabilities,
            interrupt: (makeLineEnd(line), UInt8(PlatformLayout.PCI.firstGSI + line)), in: memory)
        function.assign(allocate)
        bus.insert(function, at: device)
        return function
    }

    /// The next `size` bytes of the window, aligned to their size.
    private func allocate(_ size: UInt64) -> UInt64? {
        freeMemory.withLock { free in
            // No less than a page, so that no two BARs share one.
            let size = max(size, 4096)
            let start = (free.next &+ size &- 1) & ~(size &- 1)
            guard start <= free.end, size <= free.end &- start else { return nil }
            free.next = start &+ size
            return start
        }
    }

    // MARK: configuration cycles

    private func find(bus number: Int, device: Int, function: Int) -> (any PCIConfigurable)? {
        number == 0 ? bus.find(device: device, function: function) : nil
    }

    fileprivate func read(_ address: ConfigurationAddress, _ width: AccessWidth) -> UInt32 {
        find(bus: address.bus, device: address.device, function: address.function)?
            .readConfiguration(address.register, width) ?? UInt32.max
    }

    fileprivate func write(_ address: ConfigurationAddress, _ width: AccessWidth, _ value: UInt32) {
        find(bus: address.bus, device: address.device, function: address.function)?
            .writeConfiguration(address.register, width, value)
    }

    /// The ports 0xCF8 to 0xCFF. Byte accesses at 0xCF9 go to `resetControl`.
    public func makePorts(resetControl: any PortDevice) -> any PortDevice {
        ConfigurationPorts(bridge: self, resetControl: resetControl)
    }

    /// The memory window of ECAM, `PlatformLayout.PCI.ecamSize` bytes.
    public func makeECAM() -> any MMIODevice { ECAM(bridge: self) }
}

/// Bus, device, function and register that a configuration cycle goes to.
private struct ConfigurationAddress {
    var bus: Int
    var device: Int
    var function: Int
    var register: Int
}

/// CONFIG_ADDRESS and CONFIG_DATA.
private final class ConfigurationPorts: PortDevice {
    private static let data: UInt16 = 4
    private static let enable: UInt32 = 1 << 31
    /// Bus, device, function and register (PCI 3.0, figure 3-2).
    private static let place: UInt32 = 0x00FF_FFFC

    private let bridge: PCIHostBridge
    private let resetControl: any PortDevice
    /// Guards CONFIG_ADDRESS.
    private let address = Mutex<UInt32>(0)

    init(bridge: PCIHostBridge, resetControl: any PortDevice) {
        self.bridge = bridge
        self.resetControl = resetControl
    }

    func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        if offset >= Self.data {
            return target(offset &- Self.data).map { bridge.read($0, width) } ?? UInt32.max
        }
        if offset == 0, width == .four { return address.withLock { $0 } }
        return resetControl.readPort(offset: offset, width: width)
    }

    func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        if offset >= Self.data {
            if let target = target(offset &- Self.data) { bridge.write(target, width, value) }
        } else if offset == 0, width == .four {
            address.withLock { $0 = value & (Self.enable | Self.place) }
        } else {
            resetControl.writePort(offset: offset, width: width, value: value)
        }
    }

    /// Where CONFIG_DATA's byte `first` leads; nil while mechanism 1 is off.
    private func target(_ first: UInt16) -> ConfigurationAddress? {
        let address = address.withLock { $0 }
        guard address & Self.enable != 0 else { return nil }
        return ConfigurationAddress(
            bus: Int(address >> 16 & 0xFF), device: Int(address >> 11 & 31), function: Int(address >> 8 & 7),
            register: Int(address & 0xFC) + Int(first))
    }
}

/// A megabyte for each bus, 4 KiB for each function.
private final class ECAM: MMIODevice {
    private let bridge: PCIHostBridge

    init(bridge: PCIHostBridge) { self.bridge = bridge }

    func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard width != .eight else {
            return readMMIO(offset: offset, width: .four) | readMMIO(offset: offset &+ 4, width: .four) << 32
        }
        return UInt64(bridge.read(target(offset), width))
    }

    func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width != .eight else {
            writeMMIO(offset: offset, width: .four, value: value & AccessWidth.four.mask)
            return writeMMIO(offset: offset &+ 4, width: .four, value: value >> 32)
        }
        bridge.write(target(offset), width, UInt32(truncatingIfNeeded: value))
    }

    private func target(_ offset: UInt64) -> ConfigurationAddress {
        ConfigurationAddress(
            bus: Int(offset >> 20 & 0xFF), device: Int(offset >> 15 & 31), function: Int(offset >> 12 & 7),
            register: Int(offset & 0xFFF))
    }
}
