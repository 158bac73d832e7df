import GuestMemory

/// What a device occupies, as `_CRS` lists it (ACPI 6.5, section 6.4).
public struct ResourceDescriptor: Sendable {
    let bytes: [UInt8]

    /// Ports that stand where they are (6.4.2.5, with all 16 address bits decoded).
    public static func ports(_ range: ClosedRange<UInt16>) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        descriptor.append([0x47, 0x01])
        descriptor.append(range.lowerBound)
        descriptor.append(range.lowerBound)
        descriptor.append([1, UInt8(range.count)])
        return ResourceDescriptor(bytes: descriptor.bytes)
    }

    public static func port(_ port: UInt16) -> ResourceDescriptor { ports(port...port) }

    /// An edge-triggered, active-high ISA interrupt of its own (6.4.2.1).
    public static func interrupt(_ irq: Int) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        descriptor.append(UInt8(0x22))
        descriptor.append(UInt16(1) << UInt16(irq))
        return ResourceDescriptor(bytes: descriptor.bytes)
    }

    /// A fixed, writable range below 4 GiB, `size` in bytes (6.4.3.4).
    public static func memory(_ start: GuestPhysicalAddress, size: UInt64) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        descriptor.append([0x86, 9, 0, 1])
        descriptor.append(UInt32(start.rawValue))
        descriptor.append(UInt32(size))
        return ResourceDescriptor(bytes: descriptor.bytes)
    }
}
