import GuestMemory
import MachineModel
import Synchronization

/// Who a function is (PCI 3.0, 6.2.1).
public struct PCIIdentity: Sendable {
    public var vendorID: UInt16
    public var deviceID: UInt16
    /// Base class, sub-class and interface, as in 0x010000.
    public var classCode: UInt32
    public var revision: UInt8
    public var subsystemVendorID: UInt16
    public var subsystemID: UInt16

    public init(
        vendorID: UInt16, deviceID: UInt16, classCode: UInt32, revision: UInt8 = 0, subsystemVendorID: UInt16 = 0,
        subsystemID: UInt16 = 0
    ) {
        self.vendorID = vendorID
        self.deviceID = deviceID
        self.classCode = classCode
        self.revision = revision
        self.subsystemVendorID = subsystemVendorID
        self.subsystemID = subsystemID
    }
}

/// A memory BAR and what answers behind it.
public struct PCIMemoryBAR: Sendable {
    /// 0 to 5.
    public var index: Int
    /// In bytes; a power of two, at least 16.
    public var size: UInt64
    public var device: any MMIODevice
    /// Told where the BAR stands when that has changed, with the function's lock held.
    public var didMove: (@Sendable (GuestPhysicalAddress?) -> Void)?

    public init(
        index: Int, size: UInt64, device: any MMIODevice, didMove: (@Sendable (GuestPhysicalAddress?) -> Void)? = nil
    ) {
        self.index = index
        self.size = size
        self.device = device
        self.didMove = didMove
    }
}

/// A capability of the kind that only its vendor knows: all but its ID and its link to the next.
public struct PCIVendorCapability: Sendable {
    public var body: [UInt8]
    /// Offset in the capability of a window onto the BARs, as virtio has it (virtio 1.2, 4.1.4.9): the four bytes there are those at the
    /// place that the guest names in the BAR, offset and length fields before them. Nil if there is none.
    public var windowOffset: Int?

    public init(body: [UInt8], windowOffset: Int? = nil) {
        self.body = body
        self.windowOffset = windowOffset
    }
}

/// What answers to configuration cycles at one device and function number. Any thread may call.
public protocol PCIConfigurable: AnyObject, Sendable {
    func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32
    func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32)
}

/// A function with a type 0 header: 32-bit memory BARs, MSI-X or INTA#, and an integrated endpoint's PCI Express capability.
///
/// Left out: I/O BARs, MSI, power states. Bus mastering is not asked before a message is sent: guests turn it off only when they have
/// reset the device.
public final class PCIFunction: PCIConfigurable {
    private struct BAR: Sendable {
        let register: Int
        let size: UInt64
        let device: any MMIODevice
        let place: any MMIOPlace
        let didMove: (@Sendable (GuestPhysicalAddress?) -> Void)?
        var address: GuestPhysicalAddress?
    }

    private struct State: Sendable {
        var space = ConfigurationSpace()
        var bars: [BAR] = []
        var isInterrupting = false
    }

    /// Guards the registers, and that BARs and interrupt line follow them in order. A BAR's device is never called under it.
    private let state: Mutex<State>
    private let msix: MSIXTable?
    private let msixCapability: Int
    private let window: Int?
    private let line: (any IRQLine)?

    /// Gives each BAR a place in `memory`, where the guest, or `assign`, moves it to. With an `interrupt` the function has the pin INTA#,
    /// which leads to it. `msixBAR` is where the table stands.
    public init(
        _ identity: PCIIdentity, name: String, bars: [PCIMemoryBAR] = [], msix: (table: MSIXTable, bar: Int)? = nil,
        capabilities: [PCIVendorCapability] = [], interrupt: (line: any IRQLine, number: UInt8)? = nil,
        isExpress: Bool = true, in memory: any MMIOSpace
    ) throws(PCIError) {
        var state = State()
        state.space.setHeader(identity)
        var bars = bars
        if let msix { bars.append(PCIMemoryBAR(index: msix.bar, size: msix.table.size, device: msix.table)) }
        for bar in bars {
            precondition(bar.size >= 16 && bar.size & (bar.size - 1) == 0 && bar.size < 1 << 31, "a BAR of odd size")
            guard let place = memory.makePlace(for: bar.device, name: "\(name) BAR \(bar.index)", size: bar.size) else {
                throw .noPlace(name)
            }
            let register = ConfigurationRegister.baseAddress + bar.index * 4
            state.space.set(register, UInt32(0), writable: ~UInt32(bar.size - 1))
            state.bars.append(
                BAR(register: register, size: bar.size, device: bar.device, place: place, didMove: bar.didMove))
        }
        if isExpress { state.space.addIntegratedEndpoint() }
        msixCapability =
            msix.map { state.space.addMSIX(count: $0.table.count, bar: $0.bar, $0.table.pendingOffset) } ?? 0
        var window: Int?
        for capability in capabilities {
            let offset = state.space.addVendorCapability(capability)
            if let place = capability.windowOffset { window = offset + place }
        }
        if let interrupt {
            state.space.set(ConfigurationRegister.interruptPin, UInt8(1))
            state.space.set(ConfigurationRegister.interruptLine, interrupt.number, writable: UInt8.max)
        }
        self.window = window
        self.msix = msix?.table
        line = interrupt?.line
        self.state = Mutex(state)
    }

    /// Asks for service through INTA#, or no more.
    public func setInterrupt(_ level: Bool) {
        state.withLock { state in
            state.isInterrupting = level
            followInterrupt(&state)
        }
    }

    /// Writes addresses to the BARs as firmware does before it starts an operating system. `allocate` is given sizes in bytes.
    func assign(_ allocate: (UInt64) -> UInt64?) {
        state.withLock { state in
            for bar in state.bars {
                guard let address = allocate(bar.size) else { continue }
                state.space[bar.register, UInt32.self] = UInt32(truncatingIfNeeded: address)
            }
        }
    }

    // MARK: configuration cycles

    public func readConfiguration(_ offset: Int, _ width: AccessWidth) -> UInt32 {
        if let window, (window..<window + 4).contains(offset), let (device, place) = windowTarget(window) {
            return UInt32(truncatingIfNeeded: device.readMMIO(offset: place, width: width) & width.mask)
        }
        return state.withLock { $0.space.read(offset, width) }
    }

    public func writeConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        if let window, (window..<window + 4).contains(offset) {
            guard let (device, place) = windowTarget(window) else { return }
            return device.writeMMIO(offset: place, width: width, value: UInt64(value) & width.mask)
        }
        state.withLock { state in
            guard state.space.write(offset, width, value) else { return }
            followBARs(&state)
            followInterrupt(&state)
            followMSIX(state)
        }
    }

    /// What stands behind the window now, whose length field must ask for 1, 2 or 4 bytes.
    private func windowTarget(_ window: Int) -> (any MMIODevice, UInt64)? {
        state.withLock { state in
            let register = ConfigurationRegister.baseAddress + Int(state.space[window - 12, UInt8.self]) * 4
            let offset = UInt64(state.space[window - 8, UInt32.self])
            let length = UInt64(state.space[window - 4, UInt32.self])
            guard length == 1 || length == 2 || length == 4,
                let bar = state.bars.first(where: { $0.register == register }), offset <= bar.size - length
            else { return nil }
            return (bar.device, offset)
        }
    }

    private func followBARs(_ state: inout State) {
        let isOn = state.space[ConfigurationRegister.command, UInt16.self] & Command.memorySpace != 0
        for index in state.bars.indices {
            let bar = state.bars[index]
            let base = UInt64(state.space[bar.register, UInt32.self] & ~UInt32(bar.size - 1))
            // All ones is a guest that asks for the size; zero has not been assigned.
            let isAssigned = base != 0 && base != UInt64(~UInt32(bar.size - 1))
            let wanted = isOn && isAssigned ? GuestPhysicalAddress(base) : nil
            guard wanted != bar.address else { continue }
            // Where something else stands it answers nowhere, until the guest writes again.
            if bar.place.move(to: wanted) {
                state.bars[index].address = wanted
            } else {
                _ = bar.place.move(to: nil)
                state.bars[index].address = nil
            }
            bar.didMove?(state.bars[index].address)
        }
    }

    private func followInterrupt(_ state: inout State) {
        guard let line else { return }
        let isOff = state.space[ConfigurationRegister.command, UInt16.self] & Command.interruptDisable != 0
        var status = state.space[ConfigurationRegister.status, UInt16.self] & ~Status.interrupt
        if state.isInterrupting { status |= Status.interrupt }
        state.space[ConfigurationRegister.status, UInt16.self] = status
        line.set(state.isInterrupting && !isOff)
    }

    private func followMSIX(_ state: borrowing State) {
        guard let msix else { return }
        let control = state.space[msixCapability + MSIXCapability.messageControl, UInt16.self]
        msix.setControl(
            isEnabled: control & MSIXCapability.enable != 0,
            isFunctionMasked: control & MSIXCapability.functionMask != 0)
    }
}

/// Why a function could not be put on a bus.
public enum PCIError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The address space has no place for the function's BARs.
    case noPlace(String)
    /// All device numbers of the bus are taken.
    case busFull(String)

    public var description: String {
        switch self {
        case .noPlace(let name): "no address space is left for \(name)"
        case .busFull(let name): "no PCI device number is left for \(name)"
        }
    }
}
