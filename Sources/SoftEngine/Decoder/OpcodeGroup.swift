/// Families of opcodes, as documents and fuzzers report them.
enum OpcodeGroup: UInt8, CaseIterable {
    case arithmetic, logic, shift, bit, multiplyDivide, decimal, dataMovement, stack, string, flags
    case branch, farTransfer, software, segment, system, inputOutput, hint, bmi, extendedState
    case x87Arithmetic, x87Transfer, x87Control
    case mmx, sse, sse2, sse3, ssse3, sse41, sse42, sse4a, aes, pclmulqdq, sha, gfni
    case avx, avx2, fma, f16c

    /// As it stands in tables.
    var name: String {
        switch self {
        case .multiplyDivide: "multiply and divide"
        case .dataMovement: "data movement"
        case .farTransfer: "far transfer"
        case .software: "software interrupt"
        case .inputOutput: "port I/O"
        case .extendedState: "extended state"
        case .x87Arithmetic: "x87 arithmetic"
        case .x87Transfer: "x87 transfer"
        case .x87Control: "x87 control"
        case .sse41: "SSE4.1"
        case .sse42: "SSE4.2"
        case .sse4a: "SSE4a"
        case .bmi, .mmx, .sse, .sse2, .sse3, .ssse3, .aes, .pclmulqdq, .sha, .gfni, .avx, .avx2, .fma, .f16c:
            "\(self)".uppercased()
        default: "\(self)"
        }
    }
}
