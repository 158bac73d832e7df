import MachineModel

/// PCI Express's memory-mapped configuration space (PCI Firmware Specification 3.2, 4.1.2).
enum MCFG {
    static func table() -> ACPITable {
        var body = FieldWriter()
        body.appendZeros(8)
        body.append(PlatformLayout.PCI.ecam.rawValue)
        // The segment, its first and its last bus.
        body.append(UInt16(0))
        body.append(UInt8(0))
        body.append(UInt8(PlatformLayout.PCI.busCount - 1))
        body.appendZeros(4)
        return ACPITable(signature: "MCFG", revision: 1, body: body.bytes)
    }
}
