import MachineModel

extension PortDevice {
    /// The guest's `in al, dx`.
    func byte(_ offset: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: readPort(offset: offset, width: .one)) }

    /// The guest's `out dx, al`.
    func out(_ offset: UInt16, _ value: UInt8) { writePort(offset: offset, width: .one, value: UInt32(value)) }

    /// One access that depends on `value` only: its low bits choose direction and width, which is one of the first `widths`.
    func hammer(offset: UInt16, value: UInt64, widths: Int) {
        let width = [AccessWidth.one, .two, .four][Int(value >> 8 & 0xFF) % widths]
        if value >> 16 & 1 == 0 {
            _ = readPort(offset: offset, width: width)
        } else {
            writePort(offset: offset, width: width, value: UInt32(truncatingIfNeeded: value >> 24))
        }
    }
}

/// Numbers that are the same in each run (SplitMix64).
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
