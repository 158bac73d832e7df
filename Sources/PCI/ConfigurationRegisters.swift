// Configuration space: PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification 5.0, chapter 7.

/// Offsets of the header's registers.
enum ConfigurationRegister {
    static let vendorID = 0x00
    static let command = 0x04
    static let status = 0x06
    static let revisionID = 0x08
    static let headerType = 0x0E
    /// BAR 0; six of them, four bytes each, in a type 0 header.
    static let baseAddress = 0x10
    static let subsystemVendorID = 0x2C
    static let capabilitiesPointer = 0x34
    static let interruptLine = 0x3C
    static let interruptPin = 0x3D

    // Type 1 (PCI-to-PCI Bridge Architecture Specification 1.2, 3.2).
    static let primaryBus = 0x18
    static let secondaryBus = 0x19
    static let subordinateBus = 0x1A
    static let secondaryStatus = 0x1E
    static let memoryBase = 0x20
    static let prefetchableBase = 0x24
    static let prefetchableBaseUpper = 0x28
    static let bridgeControl = 0x3E
}

/// Bits of the command register (6.2.2).
enum Command {
    static let memorySpace: UInt16 = 1 << 1
    static let busMaster: UInt16 = 1 << 2
    static let parityErrorResponse: UInt16 = 1 << 6
    static let serrEnable: UInt16 = 1 << 8
    static let interruptDisable: UInt16 = 1 << 10
    static let writable = memorySpace | busMaster | parityErrorResponse | serrEnable | interruptDisable
}

/// Bits of the status register (6.2.3).
enum Status {
    static let interrupt: UInt16 = 1 << 3
    static let capabilitiesList: UInt16 = 1 << 4
}

/// Capability IDs (PCI Code and ID Assignment Specification, chapter 2).
public enum CapabilityID {
    public static let vendorSpecific: UInt8 = 0x09
    static let express: UInt8 = 0x10
    static let msix: UInt8 = 0x11
}

/// The MSI-X capability (PCI 3.0, 6.8.2).
enum MSIXCapability {
    static let messageControl = 2
    static let table = 4
    static let pendingBits = 8
    static let size = 12
    /// Message control.
    static let enable: UInt16 = 1 << 15
    static let functionMask: UInt16 = 1 << 14
}

/// The PCI Express capability (PCI Express 5.0, 7.5.3).
enum ExpressCapability {
    static let deviceControl = 0x08
    static let slotCapabilities = 0x14
    static let slotControl = 0x18
    static let slotStatus = 0x1A
    static let rootControl = 0x1C
    static let linkCapabilities = 0x0C
    static let linkStatus = 0x12
    static let size = 0x3C
    static let version: UInt16 = 2
    /// Device/port types.
    static let rootPort: UInt16 = 4
    static let integratedEndpoint: UInt16 = 9
    static let slotImplemented: UInt16 = 1 << 8
}
