extension ConfigurationSpace {
    /// The part of the header that is the same in types 0 and 1.
    mutating func setHeader(_ identity: PCIIdentity, type: UInt8 = 0) {
        typealias Register = ConfigurationRegister
        set(Register.vendorID, UInt32(identity.deviceID) << 16 | UInt32(identity.vendorID))
        set(Register.command, UInt16(0), writable: Command.writable)
        set(Register.revisionID, identity.classCode << 8 | UInt32(identity.revision))
        set(Register.headerType, type)
        guard type == 0 else { return }
        set(Register.subsystemVendorID, UInt32(identity.subsystemID) << 16 | UInt32(identity.subsystemVendorID))
    }

    /// The PCI Express capability of an endpoint in the root complex, which has no link.
    mutating func addIntegratedEndpoint() {
        let offset = addCapability(CapabilityID.express, size: ExpressCapability.size)
        set(offset + 2, ExpressCapability.version | ExpressCapability.integratedEndpoint << 4)
        // Error reporting enables and the payload sizes are a guest's to write; nothing comes of them.
        set(offset + ExpressCapability.deviceControl, UInt16(0), writable: 0x7FFF)
    }

    /// The MSI-X capability; returns its offset.
    mutating func addMSIX(count: Int, bar: Int, _ pendingOffset: UInt64) -> Int {
        let offset = addCapability(CapabilityID.msix, size: MSIXCapability.size)
        set(
            offset + MSIXCapability.messageControl, UInt16(count - 1),
            writable: MSIXCapability.enable | MSIXCapability.functionMask)
        set(offset + MSIXCapability.table, UInt32(bar))
        set(offset + MSIXCapability.pendingBits, UInt32(pendingOffset) | UInt32(bar))
        return offset
    }

    /// A vendor-specific capability; returns its offset.
    mutating func addVendorCapability(_ capability: PCIVendorCapability) -> Int {
        let offset = addCapability(CapabilityID.vendorSpecific, size: 2 + capability.body.count)
        for (index, byte) in capability.body.enumerated() { set(offset + 2 + index, byte) }
        if let window = capability.windowOffset {
            // BAR number, offset and length.
            set(offset + window - 12, UInt8(0), writable: UInt8.max)
            set(offset + window - 8, UInt32(0), writable: UInt32.max)
            set(offset + window - 4, UInt32(0), writable: UInt32.max)
        }
        return offset
    }
}
