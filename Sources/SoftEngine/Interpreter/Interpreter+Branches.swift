import CDavit
import X86

// Near control transfers. Targets are checked before anything is committed.
extension Interpreter {
    /// Makes `target`, cut to `size` bytes, the next instruction. #GP(0) if it is not canonical or beyond CS's limit.
    @inline(always)
    func branch(to target: UInt64, size: UInt8) throws(GuestFault) {
        cpu.pointee.next_rip = try branchTarget(target, size: size)
    }

    @inline(always)
    func branchTarget(_ target: UInt64, size: UInt8) throws(GuestFault) -> UInt64 {
        let masked = target & Self.mask(size)
        if is64Bit {
            if UInt64(bitPattern: Int64(bitPattern: masked << 16) >> 16) != masked { throw .generalProtection }
        } else if masked > UInt64(segments[Int(DAVIT_CS.rawValue)].limit) {
            throw .generalProtection
        }
        return masked
    }

    @inline(always)
    func branchRelative(_ instruction: borrowing Instruction) throws(GuestFault) {
        try branch(
            to: cpu.pointee.next_rip &+ UInt64(bitPattern: instruction.immediate), size: instruction.operandSize)
    }

    @inline(never)
    func call(_ instruction: borrowing Instruction) throws(GuestFault) {
        try call(
            target: cpu.pointee.next_rip &+ UInt64(bitPattern: instruction.immediate), size: instruction.operandSize)
    }

    @inline(never)
    func callIndirect(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        try call(target: try readE(instruction, size: size), size: size)
    }

    @inline(always)
    private func call(target: UInt64, size: UInt8) throws(GuestFault) {
        let checked: UInt64
        do throws(GuestFault) {
            checked = try branchTarget(target, size: size)
        } catch {
            // A fault of the push comes before that of the target.
            let place = try stackAddress(gpr[GeneralRegister.RSP] &- UInt64(size), size: size, write: true)
            _ = try hostPointerForWrite(linear: place, size: Int(size))
            throw error
        }
        try push(cpu.pointee.next_rip, size: size)
        cpu.pointee.next_rip = checked
    }

    @inline(never)
    func jumpIndirect(_ instruction: borrowing Instruction) throws(GuestFault) {
        try branch(to: try readE(instruction, size: instruction.operandSize), size: instruction.operandSize)
    }

    /// RET, with bytes to release or without.
    @inline(never)
    func ret(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let pointer = stackPointer
        let target = try load(linear: try stackAddress(pointer, size: size, write: false), size: size)
        try branch(to: target, size: size)
        setStackPointer(pointer &+ UInt64(size) &+ UInt64(bitPattern: instruction.immediate))
    }

    /// LOOP, LOOPE, LOOPNE.
    @inline(never)
    func loop(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.addressSize
        let count = (gpr[GeneralRegister.RCX] &- 1) & Self.mask(size)
        var isTaken = count != 0
        if instruction.operation != .loop {
            var wantsZero = instruction.operation == .loope
            // AMD's CPUs take a REPE or REPNE prefix for the condition, whichever the opcode is; their manual does not say so.
            if !instruction.prefixes.isDisjoint(with: [.rep, .repne]) && HostCPUID.isAMD {
                wantsZero = instruction.prefixes.contains(.rep)
            }
            isTaken = isTaken && (cpu.pointee.rflags & RFLAGS.ZF != 0) == wantsZero
        }
        if isTaken { try branchRelative(instruction) }
        writeRegister(1, size: size, rex: true, count)
    }

    /// JCXZ, JECXZ, JRCXZ by address size.
    @inline(never)
    func jumpIfCountIsZero(_ instruction: borrowing Instruction) throws(GuestFault) {
        if gpr[GeneralRegister.RCX] & Self.mask(instruction.addressSize) == 0 { try branchRelative(instruction) }
    }

    /// BOUND: a signed index against two bounds in memory.
    @inline(never)
    func checkBounds(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let linear = try operandAddress(instruction, size: UInt64(size) &* 2, write: false)
        let second = (linear &+ UInt64(size)) & 0xFFFF_FFFF
        let lower = Int64(bitPattern: Self.signExtend(try load(linear: linear, size: size), size: size))
        let upper = Int64(bitPattern: Self.signExtend(try load(linear: second, size: size), size: size))
        let value = Int64(bitPattern: Self.signExtend(readG(instruction, size: size), size: size))
        if value < lower || value > upper { throw GuestFault(.BR) }
    }
}
