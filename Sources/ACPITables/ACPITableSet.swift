import GuestMemory
import MachineModel

/// All ACPI tables of a machine, laid out for the part of the BIOS area below the BIOS itself, 0xE0000 to 0xEFFFF.
///
/// The root pointer comes first, where kernels that search for it by themselves find it; boot protocols hand its address over too.
public struct ACPITableSet: Sendable {
    /// Where the tables go; memory maps call it reserved.
    public static let area: Range<UInt64> = 0xE_0000..<0xF_0000

    /// The root pointer's address.
    public let rsdp = GuestPhysicalAddress(area.lowerBound)
    /// Every table that has a header, with its address.
    public let tables: [(address: GuestPhysicalAddress, table: ACPITable)]
    private let image: [UInt8]

    public init(_ platform: ACPIPlatform) throws(ACPIError) {
        guard (1...ACPIPlatform.maximumProcessorCount).contains(platform.processorCount) else {
            throw .processorCount(platform.processorCount)
        }
        let serialCount = PlatformLayout.Port.serial.count
        if let port = platform.serialPorts.first(where: { !(0..<serialCount).contains($0) }) { throw .serialPort(port) }

        var layout = Layout()
        let facs = layout.append(FACS.bytes(), alignment: FACS.alignment)
        let dsdt = layout.append(DSDT.table(platform))
        var listed = [layout.append(FADT.table(facs: facs, dsdt: dsdt, hasKeyboard: platform.hasKeyboard))]
        listed.append(layout.append(MADT.table(processorCount: platform.processorCount)))
        listed.append(layout.append(MCFG.table()))
        if platform.hasHPET { listed.append(layout.append(HPETTable.table())) }
        for table in platform.tables { listed.append(layout.append(table)) }
        let rsdt = layout.append(RootTables.rsdt(listed))
        let xsdt = layout.append(RootTables.xsdt(listed))
        layout.bytes.replaceSubrange(0..<RSDP.size, with: RSDP.bytes(rsdt: rsdt, xsdt: xsdt))

        guard layout.bytes.count <= Self.area.count else { throw .tooLarge(layout.bytes.count) }
        tables = layout.tables
        image = layout.bytes
    }

    /// Writes the tables, and zeros to the rest of their area. To be done again on each reset: guests may write there.
    public func write(into memory: GuestMemory) throws(NotRAM) {
        let rest = [UInt8](repeating: 0, count: Self.area.count - image.count)
        try memory.write(bytes: image + rest, at: rsdp)
    }

    /// Tables one after another, behind the place of the root pointer.
    private struct Layout {
        var bytes = [UInt8](repeating: 0, count: RSDP.size)
        var tables: [(address: GuestPhysicalAddress, table: ACPITable)] = []

        mutating func append(_ contents: [UInt8], alignment: Int = 16) -> GuestPhysicalAddress {
            bytes += repeatElement(0, count: -bytes.count & (alignment - 1))
            let address = GuestPhysicalAddress(ACPITableSet.area.lowerBound + UInt64(bytes.count))
            bytes += contents
            return address
        }

        mutating func append(_ table: ACPITable) -> GuestPhysicalAddress {
            let address = append(table.bytes)
            tables.append((address, table))
            return address
        }
    }
}
