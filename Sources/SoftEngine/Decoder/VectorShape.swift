/// What an x87, MMX, SSE or AVX instruction does with its operands: all that is needed to have the host carry it out on operands
/// that were fetched for it. `Instruction` tells the rest:
///
/// - `operandSize` is the size of the memory operand in bytes (FNSTENV's and FNSAVE's included), 0 where there is none;
///   `prefixes.l` is the vector length.
/// - `prefixes` holds exactly one mandatory prefix (.operandSize, .rep or .repne) or none, for VEX too.
/// - General registers are 64 bits wide if `prefixes.w` stands, else 32, and written with zero extension in any case;
///   `.w` never stands outside 64-bit mode where it would widen a general register.
/// - `immediate` is the zero-extended imm8, the register of the four-operand forms in its bits 4-7 included.
struct VectorShape: BitwiseCopyable {
    enum Register: UInt8 {
        /// Not an operand (an opcode extension, or memory only).
        case none
        /// XMM, or YMM under VEX.L.
        case vector
        case mmx
        case general
    }

    /// ModRM.reg.
    var reg: Register = .none
    /// ModRM.rm where it is a register.
    var rm: Register = .none
    var access: Access = []

    struct Access: OptionSet, BitwiseCopyable {
        let rawValue: UInt32
        static let readsReg = Access(rawValue: 1 << 0)
        static let writesReg = Access(rawValue: 1 << 1)
        /// Register or memory, whichever it is.
        static let readsRM = Access(rawValue: 1 << 2)
        static let writesRM = Access(rawValue: 1 << 3)
        /// VEX.vvvv, always a vector.
        static let readsVVVV = Access(rawValue: 1 << 4)
        static let writesVVVV = Access(rawValue: 1 << 5)
        /// The memory operand must be aligned to its size: #GP(0) if it is not.
        static let aligned = Access(rawValue: 1 << 6)
        /// Writes arithmetic flags: (V)COMISx, (V)PTEST, VTESTPx, PCMPxSTRx, FCOMI.
        static let writesFlags = Access(rawValue: 1 << 7)
        /// Has an imm8.
        static let immediate = Access(rawValue: 1 << 8)
        /// Imm8 bits 4-7 name a vector register that is read (VBLENDVPS and its like).
        static let readsImmediateRegister = Access(rawValue: 1 << 9)
        /// Reads XMM0 as a mask or a round's constants (BLENDV, SHA256RNDS2).
        static let readsXMM0 = Access(rawValue: 1 << 10)
        /// Writes XMM0 (PCMPxSTRM).
        static let writesXMM0 = Access(rawValue: 1 << 11)
        /// Reads rAX and rDX as lengths (PCMPESTRx).
        static let readsRAXAndRDX = Access(rawValue: 1 << 12)
        /// Writes rCX (PCMPxSTRI).
        static let writesRCX = Access(rawValue: 1 << 13)
        /// Addresses memory through rDI in `Instruction.segment` (MASKMOVx).
        static let storesThroughRDI = Access(rawValue: 1 << 14)
        /// Writes AX (FNSTSW AX).
        static let writesAX = Access(rawValue: 1 << 15)
        /// x87 control instruction: neither checks for pending exceptions first, nor sets the FPU's instruction and data
        /// pointers and opcode (FNSTSW, FNINIT ...). The others do both.
        static let nonWaiting = Access(rawValue: 1 << 16)
        /// x87 instruction that checks for pending exceptions but leaves the pointers alone (FLDCW, FLDENV, FRSTOR).
        static let keepsPointers = Access(rawValue: 1 << 17)
    }
}
