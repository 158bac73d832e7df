import CDavit

extension Interpreter {
    /// Reads a general register; `size` in bytes. Without REX, byte registers 4-7 are AH CH DH BH.
    @inline(always)
    func readRegister(_ number: UInt8, size: UInt8, rex: Bool) -> UInt64 {
        let n = Int(number & 15)
        switch size {
        case 8: return gpr[n]
        case 4: return gpr[n] & 0xFFFF_FFFF
        case 2: return gpr[n] & 0xFFFF
        default: return !rex && n & 12 == 4 ? gpr[n & 3] >> 8 & 0xFF : gpr[n] & 0xFF
        }
    }

    /// Writes a general register: 32-bit writes clear the upper half, narrower ones keep it.
    @inline(always)
    func writeRegister(_ number: UInt8, size: UInt8, rex: Bool, _ value: UInt64) {
        let n = Int(number & 15)
        switch size {
        case 8: gpr[n] = value
        case 4: gpr[n] = value & 0xFFFF_FFFF
        case 2: gpr[n] = gpr[n] & ~0xFFFF | value & 0xFFFF
        default:
            if !rex && n & 12 == 4 {
                gpr[n & 3] = gpr[n & 3] & ~0xFF00 | (value & 0xFF) << 8
            } else {
                gpr[n] = gpr[n] & ~0xFF | value & 0xFF
            }
        }
    }
}
