/// The kinds of ModRM.reg and ModRM.rm: V vector, P MMX, G general register, N none (or memory only).
struct VectorOperands: BitwiseCopyable {
    let reg: VectorShape.Register
    let rm: VectorShape.Register

    static let vv = VectorOperands(reg: .vector, rm: .vector)
    static let vn = VectorOperands(reg: .vector, rm: .none)
    static let nv = VectorOperands(reg: .none, rm: .vector)
    static let vg = VectorOperands(reg: .vector, rm: .general)
    static let gv = VectorOperands(reg: .general, rm: .vector)
    static let pp = VectorOperands(reg: .mmx, rm: .mmx)
    static let pn = VectorOperands(reg: .mmx, rm: .none)
    static let np = VectorOperands(reg: .none, rm: .mmx)
    static let pg = VectorOperands(reg: .mmx, rm: .general)
    static let gp = VectorOperands(reg: .general, rm: .mmx)
    static let pv = VectorOperands(reg: .mmx, rm: .vector)
    static let vp = VectorOperands(reg: .vector, rm: .mmx)
}

extension VectorShape.Access {
    /// reg = op(rm).
    static let unary: VectorShape.Access = [.writesReg, .readsRM]
    /// reg = op(reg, rm), and under VEX reg = op(vvvv, rm).
    static let binary: VectorShape.Access = [.readsReg, .writesReg, .readsRM]
    /// reg = op(reg, vvvv, rm).
    static let ternary: VectorShape.Access = [.readsReg, .writesReg, .readsVVVV, .readsRM]
    /// reg = op(vvvv, rm).
    static let vexBinary: VectorShape.Access = [.writesReg, .readsVVVV, .readsRM]
    /// rm = op(reg).
    static let store: VectorShape.Access = [.readsReg, .writesRM]
    /// flags = op(reg, rm).
    static let compare: VectorShape.Access = [.readsReg, .readsRM, .writesFlags]
}

/// Where a memory operand must be aligned to its size.
enum VectorAlignment {
    /// Legacy encodings of 16 bytes (SDM vol. 1, 14.9).
    case legacy
    /// VEX encodings too: VMOVAPS and its like.
    case always
    case never
}

/// Which VEX encodings an SSE instruction got, and from which feature.
enum VEXForm {
    case none
    /// 128 and 256 bits in AVX, or a scalar that ignores VEX.L.
    case float
    /// 128 bits in AVX, 256 in AVX2.
    case integer
    /// 128 bits only.
    case short
}

extension OpcodeTableBuilder {
    /// One row for a vector instruction. `access` says that there is an imm8.
    mutating func vector(
        _ pattern: OpcodePattern, _ name: StaticString, _ operands: VectorOperands, _ size: OperandSizeRule,
        _ access: VectorShape.Access, _ feature: InstructionFeature, operation: Operation = .vector,
        rules: OpcodeEntry.Rules = []
    ) {
        group = Self.group(of: feature, isVEX: pattern.isVEX)
        let readsVVVV = access.contains(.readsVVVV) || access.contains(.writesVVVV)
        add(
            pattern.isVEX && !readsVVVV ? pattern.noVVVV : pattern, name, operation, .vector, size,
            access.contains(.immediate) ? .unsigned8 : .none, rules.union(.modrm),
            shape: VectorShape(reg: operands.reg, rm: operands.rm, access: access), feature: feature)
    }

    /// A legacy SSE instruction and its VEX encodings, where VEX.vvvv takes the place of a destination that is also a source.
    mutating func sse(
        _ pattern: OpcodePattern, _ name: StaticString, _ operands: VectorOperands, _ size: OperandSizeRule,
        _ access: VectorShape.Access, _ feature: InstructionFeature, vex: VEXForm,
        alignment: VectorAlignment = .legacy, operation: Operation = .vector, rules: OpcodeEntry.Rules = []
    ) {
        var legacyAccess = access
        if alignment != .never && (size == .vector || size == .b16) { legacyAccess.insert(.aligned) }
        vector(pattern, name, operands, size, legacyAccess, feature, operation: operation)

        var vexAccess = Self.vexAccess(access, operands)
        if alignment == .always { vexAccess.insert(.aligned) }
        let encoded = pattern.vex
        // What AES and the like need AVX for in addition, the decoder checks.
        let short: InstructionFeature = feature == .aes || feature == .pclmulqdq || feature == .gfni ? feature : .avx
        switch vex {
        case .none: break
        case .float: vector(encoded, name, operands, size, vexAccess, short, operation: operation, rules: rules)
        case .short: vector(encoded.l0, name, operands, size, vexAccess, short, operation: operation, rules: rules)
        case .integer:
            vector(encoded.l0, name, operands, size, vexAccess, .avx, operation: operation, rules: rules)
            vector(encoded.l1, name, operands, size, vexAccess, .avx2, operation: operation, rules: rules)
        }
    }

    private static func vexAccess(_ access: VectorShape.Access, _ operands: VectorOperands) -> VectorShape.Access {
        var access = access
        if operands.reg == .vector, access.isSuperset(of: [.readsReg, .writesReg]) {
            access.remove(.readsReg)
            access.insert(.readsVVVV)
        }
        return access
    }

    /// An instruction on packed integers: MMX, SSE and VEX alike.
    mutating func packed(
        _ pattern: OpcodePattern, _ name: StaticString, mmx: InstructionFeature, sse feature: InstructionFeature,
        _ access: VectorShape.Access = .binary, mmxSize: OperandSizeRule = .b8, size: OperandSizeRule = .vector
    ) {
        vector(pattern.np, name, .pp, mmxSize, access, mmx)
        sse(pattern.p66, name, .vv, size, access, feature, vex: .integer)
    }

    private static func group(of feature: InstructionFeature, isVEX: Bool) -> OpcodeGroup {
        switch feature {
        case .mmx, .mmxExtensions: .mmx
        case .sse: .sse
        case .sse2: .sse2
        case .sse3: .sse3
        case .ssse3: .ssse3
        case .sse41: .sse41
        case .sse42: .sse42
        case .sse4a: .sse4a
        case .aes, .vaes: .aes
        case .pclmulqdq, .vpclmulqdq: .pclmulqdq
        case .sha: .sha
        case .gfni: .gfni
        case .avx2: .avx2
        case .fma: .fma
        case .f16c: .f16c
        default: .avx
        }
    }
}
