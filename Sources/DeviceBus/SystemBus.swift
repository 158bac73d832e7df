import GuestMemory
import MachineModel
import Synchronization

/// Both address spaces of the machine as an engine sees them, with a place to listen for `--trace io`.
public final class SystemBus: GuestIO {
    public let ports = PortBus()
    public let mmio = MMIOBus()

    private let isTraced = Atomic<Bool>(false)
    /// Guards who listens; not held while it is told.
    private let listener = Mutex(Listener())

    /// A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
    private struct Listener: Sendable {
        var call: (@Sendable (IOAccess) -> Void)?
    }

    public init() {}

    /// Installs who is told of every access after it was made, on the vCPU's thread, or removes it.
    public func trace(_ listener: (@Sendable (IOAccess) -> Void)?) {
        self.listener.withLock { $0.call = listener }
        isTraced.store(listener != nil, ordering: .releasing)
    }

    public func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 {
        let value = ports.read(port, width: width)
        if isTraced.load(ordering: .relaxed) {
            tell(
                .port, isWrite: false, UInt64(port), width, UInt64(value),
                ports.map.find(UInt64(port)).map(ports.map.name))
        }
        return value
    }

    public func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {
        ports.write(port, width: width, value: value)
        if isTraced.load(ordering: .relaxed) {
            tell(
                .port, isWrite: true, UInt64(port), width, UInt64(value),
                ports.map.find(UInt64(port)).map(ports.map.name))
        }
    }

    public func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 {
        let value = mmio.read(address.rawValue, width: width)
        if isTraced.load(ordering: .relaxed) {
            tell(
                .mmio, isWrite: false, address.rawValue, width, value,
                mmio.map.find(address.rawValue).map(mmio.map.name))
        }
        return value
    }

    public func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        mmio.write(address.rawValue, width: width, value: value)
        if isTraced.load(ordering: .relaxed) {
            tell(
                .mmio, isWrite: true, address.rawValue, width, value, mmio.map.find(address.rawValue).map(mmio.map.name)
            )
        }
    }

    @inline(never)
    private func tell(
        _ space: BusSpace, isWrite: Bool, _ address: UInt64, _ width: AccessWidth, _ value: UInt64, _ device: String?
    ) {
        let listener = listener.withLock { $0.call }
        listener?(
            IOAccess(
                space: space, isWrite: isWrite, address: address, width: width, value: value & width.mask,
                device: device))
    }
}
