import CDavit
import X86

/// An operation of the host's ALU with all its operands but one: what it then makes of a destination.
///
/// A value, and no closure: with a constant `kind` and `size` it folds into the few host instructions that it stands for.
struct ALUOperation {
    let kind: Operation
    /// Of the operands, in bytes: 1, 2, 4 or 8.
    let size: UInt8
    /// RFLAGS before.
    let flags: UInt64
    /// The second operand, the count, or what CMPXCHG compares with.
    var b: UInt64 = 0
    /// The third: the count of SHLD and SHRD, or what CMPXCHG puts in.
    var c: UInt64 = 0

    /// The new value of a destination that holds `a`, and the arithmetic flags.
    @inline(always)
    func callAsFunction(_ a: UInt64) -> davit_result {
        let size = UInt32(self.size)
        switch kind {
        case .add, .xadd: return davit_add(a, b, flags, size)
        case .or: return davit_or(a, b, flags, size)
        case .adc: return davit_adc(a, b, flags, size)
        case .sbb: return davit_sbb(a, b, flags, size)
        case .and, .test: return davit_and(a, b, flags, size)
        case .sub, .cmp: return davit_sub(a, b, flags, size)
        case .xor: return davit_xor(a, b, flags, size)
        case .inc: return davit_inc(a, flags, size)
        case .dec: return davit_dec(a, flags, size)
        case .neg: return davit_neg(a, flags, size)
        case .not: return unflagged(~a)
        case .rol: return davit_rol(a, b, flags, size)
        case .ror: return davit_ror(a, b, flags, size)
        case .rcl: return davit_rcl(a, b, flags, size)
        case .rcr: return davit_rcr(a, b, flags, size)
        case .shl: return davit_shl(a, b, flags, size)
        case .shr: return davit_shr(a, b, flags, size)
        case .sar: return davit_sar(a, b, flags, size)
        case .shld: return davit_shld(a, b, UInt8(truncatingIfNeeded: c), flags, size)
        case .shrd: return davit_shrd(a, b, UInt8(truncatingIfNeeded: c), flags, size)
        case .bt: return davit_bt(a, b, flags, size)
        case .bts: return davit_bts(a, b, flags, size)
        case .btr: return davit_btr(a, b, flags, size)
        case .btc: return davit_btc(a, b, flags, size)
        case .imul2: return davit_imul2(a, b, flags, size)
        case .bsf: return davit_bsf(a, b, flags, size)
        case .bsr: return davit_bsr(a, b, flags, size)
        case .popcnt: return davit_popcnt(a, b, flags, size)
        case .lzcnt: return davit_lzcnt(a, b, flags, size)
        case .tzcnt: return davit_tzcnt(a, b, flags, size)
        case .adcx: return davit_adcx(a, b, flags, size)
        case .adox: return davit_adox(a, b, flags, size)
        case .andn: return davit_andn(a, b, flags, size)
        case .bextr: return davit_bextr(a, b, flags, size)
        case .bzhi: return davit_bzhi(a, b, flags, size)
        case .blsr: return davit_blsr(a, b, flags, size)
        case .blsmsk: return davit_blsmsk(a, b, flags, size)
        case .blsi: return davit_blsi(a, b, flags, size)
        case .cmpxchg:
            return davit_result(value: a == b ? c : a, flags: davit_sub(b, a, flags, size).flags)
        case .cmpxchg8b:
            let others = flags & (RFLAGS.arithmetic & ~RFLAGS.ZF)
            return davit_result(value: a == b ? c : a, flags: a == b ? others | RFLAGS.ZF : others)
        // XCHG.
        default: return unflagged(b)
        }
    }

    @inline(always)
    private func unflagged(_ value: UInt64) -> davit_result {
        davit_result(value: value, flags: flags & RFLAGS.arithmetic)
    }
}
