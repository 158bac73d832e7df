/// What became of an attempt to decode.
enum DecodeOutcome: UInt8 {
    case decoded
    /// The instruction goes on past the bytes at hand: fetch the next page and try again.
    case needsMoreBytes
    /// Longer than 15 bytes: #GP(0).
    case tooLong
}

/// Decodes x86 instructions of every mode (Intel SDM vol. 2, chapter 2; AMD APM vol. 3, chapter 1) by the rows of `OpcodeTable`.
///
/// Real and virtual-8086 mode are 16-bit code here. What depends on more than the code size is left to the execution: VEX
/// is undefined in those two modes, and control-register bits and privileges are not known here.
struct Decoder {
    /// Where AMD's and Intel's CPUs differ.
    struct Behaviour: OptionSet, BitwiseCopyable {
        let rawValue: UInt8
        /// 66 shortens near branches in 64-bit mode, REX.W does not widen far pointers in memory, and VPEXTRQ and VPINSRQ are
        /// undefined outside 64-bit mode: AMD.
        static let amd = Behaviour(rawValue: 1)
    }

    // Safe: both belong to `OpcodeTable.shared`, which lives for ever and is never written after it is built.
    let entries: UnsafePointer<OpcodeEntry>
    let heads: UnsafePointer<UInt16>
    let features: InstructionFeatures
    let behaviour: Behaviour

    /// `features`: what the guest's CPUID shows; the instructions of others are undefined.
    init(features: InstructionFeatures, behaviour: Behaviour) {
        entries = OpcodeTable.shared.entries.baseAddress.unsafelyUnwrapped
        heads = OpcodeTable.shared.heads
        self.features = features
        self.behaviour = behaviour
    }

    /// The row that an instruction was decoded by.
    @inline(__always)
    func entry(of instruction: borrowing Instruction) -> UnsafePointer<OpcodeEntry> {
        entries + Int(instruction.entry)
    }

    @inline(__always)
    func shape(of instruction: borrowing Instruction) -> VectorShape {
        entries[Int(instruction.entry)].shape
    }

    /// Decodes the instruction at `bytes`, of which `available` may be read. `codeSize` is 2, 4 or 8 for 16-, 32- and 64-bit code.
    ///
    /// An undefined instruction is `.decoded` with operation `.invalid`, and a length as far as it is known. After another
    /// outcome `instruction` has no meaning.
    func decode(
        _ bytes: UnsafePointer<UInt8>, available: Int, codeSize: UInt32, into instruction: inout Instruction
    ) -> DecodeOutcome {
        var reader = CodeReader(bytes, available: available)
        instruction = Instruction()
        var state = DecodeState(long: codeSize == 8, wide: codeSize != 2)
        let first = readPrefixes(&reader, &state)
        readOpcode(first, &reader, &state, &instruction)
        if !reader.overran { readOperands(&reader, &state, &instruction) }
        if reader.overran { return available < Instruction.maximumLength ? .needsMoreBytes : .tooLong }
        instruction.length = UInt8(truncatingIfNeeded: reader.position)
        return .decoded
    }
}

/// What the decoder knows halfway.
struct DecodeState {
    /// 64-bit mode.
    let long: Bool
    /// 32- or 64-bit mode: operands of 4 bytes by default.
    let wide: Bool
    var prefixes: Instruction.Prefixes = []
    /// The segment override in force; `noSegment` without one.
    var segment: UInt8 = DecodeState.noSegment
    /// Extensions of ModRM.reg, index, and base or rm: 0 or 8.
    var r: UInt8 = 0
    var x: UInt8 = 0
    var b: UInt8 = 0
    /// VEX.vvvv is not 1111.
    var namesVVVV = false
    /// The encoding breaks a rule: #UD, once its length is known.
    var isUndefined = false

    static let noSegment: UInt8 = 0xFF

    init(long: Bool, wide: Bool) {
        self.long = long
        self.wide = wide
    }
}
