/// Which encodings a row of the opcode table stands for: opcode map, opcode byte, and a masked comparison of a key that
/// the decoder packs from prefixes, ModRM and mode. Rows are written as chains: `.x0F(0xAE).np.memory.reg(3)`.
struct OpcodePattern: BitwiseCopyable {
    /// 0 one byte, 1 0F, 2 0F 38, 3 0F 3A.
    var map: UInt8
    var opcode: UInt8
    var isVEX = false
    var mask: UInt32 = 0
    var match: UInt32 = 0

    /// Bits of the key above the ModRM byte (bits 0-7).
    enum Key {
        static let memory: UInt32 = 1 << 8
        /// The mandatory prefix: at most one of these, F2 and F3 before 66.
        static let p66: UInt32 = 1 << 9
        static let pF3: UInt32 = 1 << 10
        static let pF2: UInt32 = 1 << 11
        static let anyPrefix = p66 | pF3 | pF2
        static let w: UInt32 = 1 << 12
        static let l: UInt32 = 1 << 13
        static let long: UInt32 = 1 << 14
        /// VEX.vvvv names a register other than 0 (the field is not 1111).
        static let vvvv: UInt32 = 1 << 15
        static let rexB: UInt32 = 1 << 16
    }

    static func one(_ opcode: UInt8) -> OpcodePattern { OpcodePattern(map: 0, opcode: opcode) }
    static func x0F(_ opcode: UInt8) -> OpcodePattern { OpcodePattern(map: 1, opcode: opcode) }
    static func x0F38(_ opcode: UInt8) -> OpcodePattern { OpcodePattern(map: 2, opcode: opcode) }
    static func x0F3A(_ opcode: UInt8) -> OpcodePattern { OpcodePattern(map: 3, opcode: opcode) }

    @inline(__always)
    func requiring(_ mask: UInt32, _ match: UInt32) -> OpcodePattern {
        var pattern = self
        pattern.mask |= mask
        pattern.match |= match
        return pattern
    }

    var vex: OpcodePattern {
        var pattern = self
        pattern.isVEX = true
        return pattern
    }

    /// No mandatory prefix.
    var np: OpcodePattern { requiring(Key.anyPrefix, 0) }
    var p66: OpcodePattern { requiring(Key.anyPrefix, Key.p66) }
    var pF3: OpcodePattern { requiring(Key.anyPrefix, Key.pF3) }
    var pF2: OpcodePattern { requiring(Key.anyPrefix, Key.pF2) }
    /// Neither F2 nor F3; 66 means what it says.
    var noRep: OpcodePattern { requiring(Key.pF2 | Key.pF3, 0) }

    var memory: OpcodePattern { requiring(Key.memory, Key.memory) }
    var register: OpcodePattern { requiring(Key.memory, 0) }
    /// ModRM.reg as an opcode extension.
    func reg(_ number: UInt8) -> OpcodePattern { requiring(0x38, UInt32(number & 7) << 3) }
    /// A register form with ModRM.reg and ModRM.rm given: the whole byte, C0-FF.
    func modrm(_ byte: UInt8) -> OpcodePattern { requiring(0xFF | Key.memory, UInt32(byte)) }

    var w0: OpcodePattern { requiring(Key.w, 0) }
    var w1: OpcodePattern { requiring(Key.w, Key.w) }
    var l0: OpcodePattern { requiring(Key.l, 0) }
    var l1: OpcodePattern { requiring(Key.l, Key.l) }
    /// VEX.vvvv must be 1111.
    var noVVVV: OpcodePattern { requiring(Key.vvvv, 0) }
    var only64: OpcodePattern { requiring(Key.long, Key.long) }
    var not64: OpcodePattern { requiring(Key.long, 0) }
    var rexB: OpcodePattern { requiring(Key.rexB, Key.rexB) }
}
