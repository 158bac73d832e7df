/// One row of the opcode table: a pattern of bits that the encoding must match, and what it then means.
struct OpcodeEntry: BitwiseCopyable {
    var pattern: OpcodePattern
    /// NUL-terminated, from a string literal, so that it lives as long as the program.
    var nameBytes: UnsafePointer<CChar>
    var operation: Operation
    var form: OperandForm
    var size: OperandSizeRule
    var immediate: ImmediateKind
    var rules: Rules
    var shape: VectorShape
    var feature: InstructionFeature
    var group: OpcodeGroup
    /// Index of the next row of the same opcode; 0 ends the chain.
    var next: UInt16 = 0

    /// The mnemonic in lower case, without the condition of Jcc, SETcc and CMOVcc, Intel's spelling.
    var name: String { (pattern.isVEX && form == .vector ? "v" : "") + String(cString: nameBytes) }

    struct Rules: OptionSet, BitwiseCopyable {
        let rawValue: UInt8
        /// A ModRM byte follows; all rows of one opcode agree on it.
        static let modrm = Rules(rawValue: 1 << 0)
        /// LOCK is valid if the destination is memory.
        static let lockable = Rules(rawValue: 1 << 1)
        /// ModRM.rm is a register whatever ModRM.mod says; all rows of one opcode agree on it.
        static let registerOnly = Rules(rawValue: 1 << 2)
        /// A SIB byte with a vector index is required.
        static let vsib = Rules(rawValue: 1 << 3)
        /// VEX.W widens a general register: ignored outside 64-bit mode.
        static let widensGeneral = Rules(rawValue: 1 << 4)
    }
}

/// How the operand size follows from mode and prefixes.
enum OperandSizeRule: UInt8 {
    /// No operand that has a size.
    case none
    /// Fixed sizes in bytes.
    case b1, b2, b4, b8, b10, b16, b32
    /// 2, 4 or 8 by code size, 66 and REX.W.
    case v
    /// Like `v`, but never more than 4.
    case z
    /// 8 under REX.W or VEX.W in 64-bit mode, else 4.
    case y
    /// 8 in 64-bit mode, else 4: control and debug registers.
    case native
    /// Stack operations: 8 in 64-bit mode, 2 with 66 there; else as `v`.
    case stack
    /// Near branches: as `stack`, but Intel's CPUs ignore 66 in 64-bit mode.
    case branch
    /// Far pointers in memory: as `v`; AMD's CPUs ignore REX.W.
    case far
    /// 16, or 32 under VEX.L; then half, a quarter and an eighth of it.
    case vector, half, quarter, eighth
    /// 8, or 32 under VEX.L: VMOVDDUP.
    case duplicate
    /// x87 environment (14 or 28) and state (94 or 108) by 66 and code size.
    case environment, state
}

/// The bytes after ModRM, SIB and displacement.
enum ImmediateKind: UInt8 {
    case none
    /// 8 bits, sign-extended or not.
    case signed8, unsigned8
    case unsigned16
    /// 16 or 32 bits by operand size, sign-extended.
    case z
    /// 16, 32 or 64 bits by operand size.
    case v
    case relative8, relativeZ
    /// Offset of operand size, then the selector.
    case farPointer
    /// Absolute offset of address size, into `displacement`.
    case offset
    /// 16 bits, then 8: ENTER.
    case enter
    /// 8 bits and 8 bits: EXTRQ, INSERTQ.
    case two8
}
