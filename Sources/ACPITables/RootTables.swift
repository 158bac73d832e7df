import GuestMemory

/// The lists of all tables: RSDT with 32-bit addresses and XSDT with 64-bit ones (ACPI 6.5, 5.2.7 and 5.2.8).
enum RootTables {
    static func rsdt(_ tables: [GuestPhysicalAddress]) -> ACPITable {
        var body = FieldWriter()
        for table in tables { body.append(UInt32(table.rawValue)) }
        return ACPITable(signature: "RSDT", revision: 1, body: body.bytes)
    }

    static func xsdt(_ tables: [GuestPhysicalAddress]) -> ACPITable {
        var body = FieldWriter()
        for table in tables { body.append(table.rawValue) }
        return ACPITable(signature: "XSDT", revision: 1, body: body.bytes)
    }
}
