import MachineModel
import Synchronization

/// PCI's configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2) with one device on bus 0: the host bridge itself. So
/// that a guest finds the bus that it expects of a PC, and nothing on it.
///
/// It owns the ports 0xCF8 to 0xCFF and hands byte accesses at 0xCF9 to the reset control register. Left out: everything that a bus with
/// devices needs.
public final class HostBridge: PortDevice {
    private let resetControl: any PortDevice
    /// Guards CONFIG_ADDRESS.
    private let address = Mutex<UInt32>(0)

    public init(resetControl: any PortDevice) { self.resetControl = resetControl }

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        if offset >= HostBridgePort.data { return readData(offset - HostBridgePort.data, width) }
        if offset == HostBridgePort.address, width == .four { return address.withLock { $0 } }
        return resetControl.readPort(offset: offset, width: width)
    }

    /// Writes to the configuration space go nowhere: what the host bridge has is read-only.
    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        if offset >= HostBridgePort.data { return }
        if offset == HostBridgePort.address, width == .four {
            address.withLock { $0 = value & (ConfigAddress.enable | ConfigAddress.place) }
        } else {
            resetControl.writePort(offset: offset, width: width, value: value)
        }
    }

    /// CONFIG_DATA, from its byte `first` on; all ones where no device is.
    private func readData(_ first: UInt16, _ width: AccessWidth) -> UInt32 {
        let address = address.withLock { $0 }
        guard address & (ConfigAddress.enable | ConfigAddress.device) == ConfigAddress.enable else { return UInt32.max }
        let register = HostBridgeHeader.register(at: address & ConfigAddress.register)
        return (register &>> (UInt32(first) &* 8)) & UInt32(truncatingIfNeeded: width.mask)
    }
}
