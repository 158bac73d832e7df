/// One decoded instruction: plain data that the interpreter carries out, the translator reads, and the instruction cache keeps.
///
/// Registers are numbered with REX, VEX prefixes applied. A field that the form does not use is zero.
struct Instruction: BitwiseCopyable {
    /// What to do. `.invalid` raises #UD.
    var operation: Operation = .invalid
    /// Where the operands come from.
    var form: OperandForm = .none
    /// In bytes, 1 to 15.
    var length: UInt8 = 0
    /// In bytes: 1, 2, 4 or 8. For vectors 16 or 32, or the size of a scalar's memory operand where that is smaller.
    var operandSize: UInt8 = 0
    /// In bytes: 2, 4 or 8.
    var addressSize: UInt8 = 0
    var prefixes: Prefixes = []

    /// Opcode map: 0 one byte, 1 0F, 2 0F 38, 3 0F 3A.
    var map: UInt8 = 0
    /// Last opcode byte.
    var opcode: UInt8 = 0
    /// The ModRM byte as it stands in the code.
    var modrm: UInt8 = 0
    /// ModRM.reg or the register in the opcode, extended.
    var reg: UInt8 = 0
    /// ModRM.rm as a register, extended; meaningful where `isMemory` is false.
    var rm: UInt8 = 0
    /// VEX.vvvv as a register.
    var vvvv: UInt8 = 0

    /// Base register 0-15, `Instruction.noRegister`, or `Instruction.ripRegister`.
    var base: UInt8 = Instruction.noRegister
    /// Index register 0-15, or `Instruction.noRegister`. For `.gather` it is the vector register of the VSIB byte.
    var index: UInt8 = Instruction.noRegister
    /// Shift count of the index: 0-3.
    var scale: UInt8 = 0
    /// Effective segment of the memory operand, with overrides applied: 0-5 in the order ES CS SS DS FS GS.
    var segment: UInt8 = 3
    /// The operand named by ModRM.rm is memory.
    var isMemory = false

    /// Sign-extended; for moffs the absolute offset.
    var displacement: Int64 = 0
    /// Immediates that are narrower than the largest operand size (the ib and iz forms of arithmetic, MOV, PUSH, IMUL) are
    /// sign-extended to 64 bits whatever the operand size; so are branch displacements, which are relative to the next
    /// instruction. Counts, ports, vectors, selectors, the operands of byte instructions and of MOV B8-BF are zero-extended.
    var immediate: Int64 = 0
    /// Index of the row of `OpcodeTable` that this came from: its `shape`, name, feature and group. 0 for `.invalid`.
    var entry: UInt16 = 0
    /// ENTER's nesting level, a far pointer's selector, or EXTRQ/INSERTQ's second immediate.
    var immediate2: UInt16 = 0

    /// In bytes (SDM vol. 2, 2.3.11).
    static let maximumLength = 15
    static let noRegister: UInt8 = 0xFF
    static let ripRegister: UInt8 = 16

    struct Prefixes: OptionSet, BitwiseCopyable {
        let rawValue: UInt16
        static let lock = Prefixes(rawValue: 1 << 0)
        /// F3.
        static let rep = Prefixes(rawValue: 1 << 1)
        /// F2.
        static let repne = Prefixes(rawValue: 1 << 2)
        /// 66.
        static let operandSize = Prefixes(rawValue: 1 << 3)
        /// 67.
        static let addressSize = Prefixes(rawValue: 1 << 4)
        /// Any REX: byte registers 4-7 are SPL BPL SIL DIL.
        static let rex = Prefixes(rawValue: 1 << 5)
        /// REX.W or VEX.W.
        static let w = Prefixes(rawValue: 1 << 6)
        static let vex = Prefixes(rawValue: 1 << 7)
        /// VEX.L: 256 bits.
        static let l = Prefixes(rawValue: 1 << 8)
        /// A segment override stands in the code.
        static let segment = Prefixes(rawValue: 1 << 9)
    }
}

/// Where operands come from, destination first, in the letters of the SDM's opcode maps (vol. 2, appendix A.2):
/// E ModRM.rm (register or memory), G ModRM.reg, I immediate, Z register in the opcode, A the accumulator, M memory only, B VEX.vvvv.
enum OperandForm: UInt8 {
    /// Implicit operands, or such as the operation itself knows where to find.
    case none
    case eg
    case ge
    case ei
    case e
    /// Register in the opcode (`reg`).
    case z
    case zi
    /// AL, AX, EAX or RAX with an immediate.
    case ai
    /// Accumulator with the register in the opcode: XCHG.
    case az
    case i
    /// G, E, I: IMUL, RORX.
    case gei
    /// E, G, I: SHLD, SHRD.
    case egi
    /// Memory only.
    case m
    /// E with the count 1 or CL: shifts.
    case e1
    case eCL
    /// E, G with CL: SHLD, SHRD.
    case egCL
    /// Relative branch: `immediate`.
    case relative
    /// Far pointer: `immediate` offset, `immediate2` selector.
    case farPointer
    /// Accumulator from, or to, the absolute offset in `displacement`.
    case accumulatorFromOffset
    case offsetFromAccumulator
    /// VEX integer: G, B, E (ANDN, PDEP, PEXT, MULX); G, E, B (BEXTR, BZHI, SHLX ...); B, E (BLSR ...).
    case gbe
    case geb
    case be
    /// Vector, MMX and x87 instructions: see `VectorShape`.
    case vector
}
