/// Offsets from 0xCF8.
enum HostBridgePort {
    /// CONFIG_ADDRESS.
    static let address: UInt16 = 0
    /// CONFIG_DATA, four bytes.
    static let data: UInt16 = 4
}

/// Bits of CONFIG_ADDRESS (PCI 3.0, figure 3-2).
enum ConfigAddress {
    static let enable: UInt32 = 1 << 31
    /// Bus, device, function.
    static let device: UInt32 = 0xFFFF << 8
    static let register: UInt32 = 0xFC
    static let place = device | register
}

/// The host bridge's configuration space header (PCI 3.0, 6.1).
enum HostBridgeHeader {
    /// Vendor and device ID: Intel's virtual host bridge, of which no driver expects more than its header.
    static let identity: UInt32 = 0x0D57_8086
    /// Command and status: it answers memory cycles, nothing more.
    static let command: UInt32 = 0x0000_0002
    /// Class code 06 00 00, host bridge; revision 0.
    static let classCode: UInt32 = 0x0600_0000

    /// The 32-bit register at `offset`; those that are not there read as zero.
    static func register(at offset: UInt32) -> UInt32 {
        switch offset {
        case 0x00: identity
        case 0x04: command
        case 0x08: classCode
        default: 0
        }
    }
}
