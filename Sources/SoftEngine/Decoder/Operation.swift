/// What an instruction does, by its mnemonic. Sizes and operands are in `Instruction`.
///
/// Vector, MMX and x87 instructions that work on data alone share `.vector` and `.x87`: the engine hands the very
/// instruction to the host CPU, so its opcode is all that need be known.
enum Operation: UInt16 {
    case invalid

    // Arithmetic and logic.
    case add, or, adc, sbb, and, sub, xor, cmp, test, inc, dec, neg, not
    case mul, imul, div, idiv
    /// IMUL with two or three operands.
    case imul2
    case rol, ror, rcl, rcr, shl, shr, sar, shld, shrd
    case bt, bts, btr, btc, bsf, bsr, popcnt, lzcnt, tzcnt, bswap
    case daa, das, aaa, aas, aam, aad
    case adcx, adox, andn, bextr, blsr, blsmsk, blsi, bzhi, mulx, pdep, pext, rorx, sarx, shlx, shrx, crc32

    // Data movement.
    // MOVZX and MOVSX: the source is a byte if the opcode is even, else a word. MOVSXD: a doubleword, a word if `operandSize` is 2.
    // CRC32: `operandSize` is the source's; the destination is 8 bytes wide under `.w`, else 4.
    case mov, movzx, movsx, movsxd, movbe, movnti, lea, xchg, xadd, cmpxchg, cmpxchg8b, cmpxchg16b
    /// CBW/CWDE/CDQE and CWD/CDQ/CQO, by operand size.
    case cbw, cwd
    /// CMOVcc, SETcc and Jcc: the condition is `opcode & 15`.
    case cmov, setcc
    case push, pop, pusha, popa, pushf, popf, enter, leave
    /// PUSH and POP of a segment register: its number is in `reg`.
    case pushSegment, popSegment
    case lahf, sahf, salc, xlat
    case movs, cmps, stos, lods, scas, ins, outs

    // Control flow.
    case jcc, jmp, call, jmpIndirect, callIndirect, ret
    case loop, loope, loopne, jcxz
    case jmpFar, callFar, jmpFarIndirect, callFarIndirect, retFar, iret
    case int3, int, into, int1, ud
    case bound

    // Flags.
    case clc, stc, cmc, cld, std, cli, sti, clac, stac

    // System.
    case hlt, nop, pause, cpuid, rdtsc, rdtscp, rdpid, rdpmc, rdmsr, wrmsr, rdrand, rdseed
    case input, output
    case syscall, sysret, sysenter, sysexit
    /// MOV to and from control and debug registers: `reg` names it.
    case movFromCR, movToCR, movFromDR, movToDR
    /// MOV from and to a segment register: `reg` names it.
    case movFromSegment, movToSegment
    case les, lds, lss, lfs, lgs
    case lgdt, lidt, sgdt, sidt, lldt, ltr, sldt, str, lmsw, smsw, clts
    case lar, lsl, verr, verw, arpl
    case invlpg, invpcid, invd, wbinvd, clflush, prefetch, fence, swapgs
    case rdfsbase, rdgsbase, wrfsbase, wrgsbase
    case monitor, mwait, vmcall, vmmcall
    /// CLZERO: zeroes the cache line at rAX in the segment of `Instruction.segment`.
    case clzero
    case xgetbv, xsetbv, xsave, xsavec, xsaveopt, xsaves, xrstor, xrstors, fxsave, fxrstor
    case ldmxcsr, stmxcsr, emms, fwait

    // The host's part.
    /// MMX, SSE and AVX on data alone.
    case vector
    /// x87 escapes D8-DF.
    case x87
    /// VZEROUPPER and VZEROALL.
    case vzero
    /// MASKMOVQ, MASKMOVDQU: store to DS:rDI under a mask.
    case maskmov
    /// VPMASKMOV, VMASKMOVPS/PD: loads and stores that do not fault where the mask is clear. Elements are 8 bytes wide
    /// under `.w` and in opcodes 2D and 2F, else 4.
    case vmaskmov
    /// VGATHER and VPGATHER: `operandSize` is an element's, indices are 8 bytes wide if the opcode is odd, else 4.
    case gather
}
