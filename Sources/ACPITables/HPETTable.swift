import MachineModel

/// HPET Description Table (IA-PC HPET Specification 1.0a, 3.2.4).
enum HPETTable {
    /// The low half of the HPET's capability register: Intel's vendor id, legacy replacement, 64-bit counter, three comparators, revision 1.
    private static let eventTimerBlockID: UInt32 = 0x8086_A201
    /// Fewest ticks of a periodic timer without a lost interrupt.
    private static let minimumTick: UInt16 = 100

    static func table() -> ACPITable {
        var body = FieldWriter()
        body.append(eventTimerBlockID)
        body.append(
            GenericAddress(space: .memory, bits: 64, access: .undefined, address: PlatformLayout.MMIO.hpet.rawValue))
        body.append(UInt8(0))
        body.append(minimumTick)
        body.append(UInt8(0))
        return ACPITable(signature: "HPET", revision: 1, body: body.bytes)
    }
}
