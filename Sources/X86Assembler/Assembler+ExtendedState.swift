// Moves of vector registers and of the x87 and SSE state.
extension Assembler {
    /// MOVUPS: 16 bytes, upper halves kept.
    public mutating func loadVector(_ destination: UInt8, _ source: Operand) {
        legacy(.none, .x0F, 0x10, reg: destination, source)
    }

    public mutating func storeVector(_ destination: Operand, _ source: UInt8) {
        legacy(.none, .x0F, 0x11, reg: source, destination)
    }

    /// VINSERTF128: 16 bytes into the upper half of a YMM register, its lower half kept.
    public mutating func loadUpperHalf(_ destination: UInt8, _ source: Operand) {
        vex(.p66, .x0F3A, 0x18, l: true, reg: destination, vvvv: destination, source)
        byte(1)
    }

    /// VEXTRACTF128: the upper half of a YMM register.
    public mutating func storeUpperHalf(_ destination: Operand, _ source: UInt8) {
        vex(.p66, .x0F3A, 0x19, l: true, reg: source, destination)
        byte(1)
    }

    /// VMOVUPS of 16 bytes: the upper half becomes zero.
    public mutating func loadVectorClearing(_ destination: UInt8, _ source: Operand) {
        vex(.none, .x0F, 0x10, reg: destination, source)
    }

    public mutating func vzeroupper() { bytes(0xC5, 0xF8, 0x77) }

    public mutating func ldmxcsr(_ source: Operand) { legacy(.none, .x0F, 0xAE, reg: 2, source) }
    public mutating func stmxcsr(_ destination: Operand) { legacy(.none, .x0F, 0xAE, reg: 3, destination) }
    public mutating func fxsave64(_ destination: Operand) { legacy(.none, .x0F, 0xAE, w: true, reg: 0, destination) }
    public mutating func fxrstor64(_ source: Operand) { legacy(.none, .x0F, 0xAE, w: true, reg: 1, source) }
    public mutating func fninit() { bytes(0xDB, 0xE3) }
}
