import CDavit
import X86

extension Interpreter {
    /// Carries out one decoded instruction. `cpu.rip` is its address, `cpu.next_rip` the next one's; branches overwrite the latter.
    /// A repeated string instruction that stops for an interrupt sets it back to `cpu.rip`.
    ///
    /// When it throws, registers, memory and flags are as before (SDM vol. 3, 6.6), but for what a repeated string instruction
    /// has done, and what ENTER or PUSHA wrote below the top of the stack.
    func execute(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .invalid, .ud: throw .invalidOpcode

        case .add: try add(instruction)
        case .or: try or(instruction)
        case .adc: try adc(instruction)
        case .sbb: try sbb(instruction)
        case .and: try and(instruction)
        case .sub: try sub(instruction)
        case .xor: try xor(instruction)
        case .cmp: try cmp(instruction)
        case .test: try test(instruction)
        case .inc: try inc(instruction)
        case .dec: try dec(instruction)
        case .neg: try neg(instruction)
        case .not: try not(instruction)
        case .mul: try multiply(instruction, signed: false)
        case .imul: try multiply(instruction, signed: true)
        case .div: try divide(instruction, signed: false)
        case .idiv: try divide(instruction, signed: true)
        case .imul2: try multiplyTruncating(instruction)
        case .rol: try rol(instruction)
        case .ror: try ror(instruction)
        case .rcl: try rcl(instruction)
        case .rcr: try rcr(instruction)
        case .shl: try shl(instruction)
        case .shr: try shr(instruction)
        case .sar: try sar(instruction)
        case .shld, .shrd: try doubleShift(instruction)
        case .bt: try bt(instruction)
        case .bts: try bts(instruction)
        case .btr: try btr(instruction)
        case .btc: try btc(instruction)
        case .bsf: try bsf(instruction)
        case .bsr: try bsr(instruction)
        case .popcnt: try popcnt(instruction)
        case .lzcnt: try lzcnt(instruction)
        case .tzcnt: try tzcnt(instruction)
        case .bswap: byteSwap(instruction)
        case .daa, .das: decimalAdjust(instruction)
        case .aaa, .aas: asciiAdjust(instruction)
        case .aam: try asciiAdjustMultiplication(instruction)
        case .aad: asciiAdjustDivision(instruction)
        case .adcx: try adcx(instruction)
        case .adox: try adox(instruction)
        case .andn: try andn(instruction)
        case .bextr: try bextr(instruction)
        case .bzhi: try bzhi(instruction)
        case .blsr: try blsr(instruction)
        case .blsmsk: try blsmsk(instruction)
        case .blsi: try blsi(instruction)
        case .mulx: try multiplyWithoutFlags(instruction)
        case .pdep, .pext: try gatherBits(instruction)
        case .rorx, .sarx, .shlx, .shrx: try shiftWithoutFlags(instruction)
        case .crc32: try crc32(instruction)

        case .mov, .movnti: try mov(instruction)
        case .movzx: try moveZeroExtended(instruction)
        case .movsx, .movsxd: try moveSignExtended(instruction)
        case .movbe: try moveByteSwapped(instruction)
        case .lea: loadEffectiveAddress(instruction)
        case .xchg: try exchange(instruction)
        case .xadd: try exchangeAdd(instruction)
        case .cmpxchg: try compareExchange(instruction)
        case .cmpxchg8b: try compareExchange8(instruction)
        case .cmpxchg16b: try compareExchange16(instruction)
        case .cbw: extendAccumulator(instruction)
        case .cwd: spreadSign(instruction)
        case .cmov: try conditionalMove(instruction)
        case .setcc: try setOnCondition(instruction)
        case .push: try pushOperand(instruction)
        case .pop: try popOperand(instruction)
        case .pusha: try pushAll(instruction)
        case .popa: try popAll(instruction)
        case .pushf: try pushFlags(instruction)
        case .popf: try popFlags(instruction)
        case .enter: try enter(instruction)
        case .leave: try leave(instruction)
        case .lahf: loadFlagsToAH()
        case .sahf: storeFlagsFromAH()
        case .salc: writeRegister(0, size: 1, rex: true, cpu.pointee.rflags & RFLAGS.CF != 0 ? 0xFF : 0)
        case .xlat: try translateByte(instruction)

        case .movs: try moveString(instruction)
        case .cmps: try compareStrings(instruction)
        case .stos: try storeString(instruction)
        case .lods: try loadString(instruction)
        case .scas: try scanString(instruction)
        case .ins: try inputString(instruction)
        case .outs: try outputString(instruction)

        case .jcc: if isTrue(instruction.opcode) { try branchRelative(instruction) }
        case .jmp: try branchRelative(instruction)
        case .call: try call(instruction)
        case .jmpIndirect: try jumpIndirect(instruction)
        case .callIndirect: try callIndirect(instruction)
        case .ret: try ret(instruction)
        case .loop, .loope, .loopne: try loop(instruction)
        case .jcxz: try jumpIfCountIsZero(instruction)
        case .bound: try checkBounds(instruction)

        case .clc: cpu.pointee.rflags &= ~RFLAGS.CF
        case .stc: cpu.pointee.rflags |= RFLAGS.CF
        case .cmc: cpu.pointee.rflags ^= RFLAGS.CF
        case .cld: cpu.pointee.rflags &= ~RFLAGS.DF
        case .std: cpu.pointee.rflags |= RFLAGS.DF
        case .cli: try setInterruptFlag(false)
        case .sti: try setInterruptFlag(true)

        case .nop, .pause, .prefetch: break
        case .clflush: try checkCacheLine(instruction)
        case .clzero: try zeroCacheLine(instruction)
        case .fence: davit_fence()
        case .rdrand: random(instruction, davit_rdrand())
        case .rdseed: random(instruction, davit_rdseed())
        case .input: try input(instruction)
        case .output: try output(instruction)

        case .vector, .x87, .vzero, .maskmov, .vmaskmov, .gather, .emms, .fwait, .ldmxcsr, .stmxcsr, .fxsave, .fxrstor,
            .xsave, .xsavec, .xsaveopt, .xsaves, .xrstor, .xrstors:
            try executeOnHost(instruction)
        default: try executeSystem(instruction)
        }
    }
}

// One function for each operation that a general one is specialised for: out of line, so that `execute` stays a jump table.
extension Interpreter {
    @inline(never)
    private func add(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .add)
    }
    @inline(never)
    private func or(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .or)
    }
    @inline(never)
    private func adc(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .adc)
    }
    @inline(never)
    private func sbb(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .sbb)
    }
    @inline(never)
    private func and(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .and)
    }
    @inline(never)
    private func sub(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .sub)
    }
    @inline(never)
    private func xor(_ instruction: borrowing Instruction) throws(GuestFault) {
        try binary(instruction, .xor)
    }

    @inline(never)
    private func cmp(_ instruction: borrowing Instruction) throws(GuestFault) {
        try compare(instruction, .cmp)
    }
    @inline(never)
    private func test(_ instruction: borrowing Instruction) throws(GuestFault) {
        try compare(instruction, .test)
    }

    @inline(never)
    private func inc(_ instruction: borrowing Instruction) throws(GuestFault) {
        try unary(instruction, .inc)
    }
    @inline(never)
    private func dec(_ instruction: borrowing Instruction) throws(GuestFault) {
        try unary(instruction, .dec)
    }
    @inline(never)
    private func not(_ instruction: borrowing Instruction) throws(GuestFault) {
        try unary(instruction, .not)
    }
    @inline(never)
    private func neg(_ instruction: borrowing Instruction) throws(GuestFault) {
        try unary(instruction, .neg)
    }

    @inline(never)
    private func rol(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .rol)
    }
    @inline(never)
    private func ror(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .ror)
    }
    @inline(never)
    private func rcl(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .rcl)
    }
    @inline(never)
    private func rcr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .rcr)
    }
    @inline(never)
    private func shl(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .shl)
    }
    @inline(never)
    private func shr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .shr)
    }
    @inline(never)
    private func sar(_ instruction: borrowing Instruction) throws(GuestFault) {
        try shift(instruction, .sar)
    }

    @inline(never)
    private func bt(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitTest(instruction, .bt)
    }
    @inline(never)
    private func bts(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitTest(instruction, .bts)
    }
    @inline(never)
    private func btr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitTest(instruction, .btr)
    }
    @inline(never)
    private func btc(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitTest(instruction, .btc)
    }

    @inline(never)
    private func bsf(_ instruction: borrowing Instruction) throws(GuestFault) {
        try scan(instruction, .bsf)
    }
    @inline(never)
    private func bsr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try scan(instruction, .bsr)
    }

    @inline(never)
    private func popcnt(_ instruction: borrowing Instruction) throws(GuestFault) {
        try count(instruction, .popcnt)
    }
    @inline(never)
    private func lzcnt(_ instruction: borrowing Instruction) throws(GuestFault) {
        try count(instruction, .lzcnt)
    }
    @inline(never)
    private func tzcnt(_ instruction: borrowing Instruction) throws(GuestFault) {
        try count(instruction, .tzcnt)
    }

    @inline(never)
    private func adcx(_ instruction: borrowing Instruction) throws(GuestFault) {
        try addWithOneFlag(instruction, .adcx)
    }
    @inline(never)
    private func adox(_ instruction: borrowing Instruction) throws(GuestFault) {
        try addWithOneFlag(instruction, .adox)
    }

    @inline(never)
    private func andn(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitField(instruction, .andn)
    }
    @inline(never)
    private func bextr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitField(instruction, .bextr)
    }
    @inline(never)
    private func bzhi(_ instruction: borrowing Instruction) throws(GuestFault) {
        try bitField(instruction, .bzhi)
    }

    @inline(never)
    private func blsr(_ instruction: borrowing Instruction) throws(GuestFault) {
        try lowestBit(instruction, .blsr)
    }
    @inline(never)
    private func blsmsk(_ instruction: borrowing Instruction) throws(GuestFault) {
        try lowestBit(instruction, .blsmsk)
    }
    @inline(never)
    private func blsi(_ instruction: borrowing Instruction) throws(GuestFault) {
        try lowestBit(instruction, .blsi)
    }

}
