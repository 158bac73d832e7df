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

    /// A shared, level-triggered, active-high interrupt above those of ISA (6.4.3.6).
    public static func sharedInterrupt(gsi: Int) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        // Consumer, level, active high, shared; one interrupt.
        descriptor.append([0x89, 6, 0, 0b1001, 1])
        descriptor.append(UInt32(gsi))
        return ResourceDescriptor(bytes: descriptor.bytes)
    }

    /// The buses below a root (6.4.3.5.3).
    static func busNumbers(_ range: ClosedRange<UInt16>) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        // Type 2, bus numbers; producer, both ends fixed.
        descriptor.append([0x88, 13, 0, 2, 0b1100, 0])
        for field in [0, range.lowerBound, range.upperBound, 0, UInt16(range.count & 0xFFFF)] {
            descriptor.append(field)
        }
        return ResourceDescriptor(bytes: descriptor.bytes)
    }

    /// Memory below 4 GiB that a root passes on to what is below it (6.4.3.5.2).
    static func memoryWindow(_ range: Range<UInt64>) -> ResourceDescriptor {
        var descriptor = FieldWriter()
        // Type 0, memory; producer, both ends fixed; writable, not cacheable.
        descriptor.append([0x87, 23, 0, 0, 0b1100, 1])
        let fields = [0, range.lowerBound, range.upperBound - 1, 0, range.upperBound - range.lowerBound]
        for field in fields { descriptor.append(UInt32(truncatingIfNeeded: field)) }
        return ResourceDescriptor(bytes: descriptor.bytes)
    }
}
