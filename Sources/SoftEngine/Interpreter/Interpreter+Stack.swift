import CDavit
import X86

// The stack as PUSH and POP see it (SDM vol. 1, 6.2). Its address size comes from SS.B, or is 64 bits in 64-bit mode;
// a narrower stack wraps inside its size and leaves the upper part of RSP alone.
extension Interpreter {
    /// The bits of RSP that address the stack.
    @inline(always) var stackMask: UInt64 {
        if is64Bit { return UInt64.max }
        return segments[Int(DAVIT_SS.rawValue)].attributes & 1 << 14 != 0 ? 0xFFFF_FFFF : 0xFFFF
    }

    /// RSP's addressing part.
    @inline(always) var stackPointer: UInt64 { gpr[GeneralRegister.RSP] & stackMask }

    /// Writes RSP's addressing part: a 32-bit one clears the upper half as any 32-bit write does, a 16-bit one keeps the rest.
    @inline(always)
    func setStackPointer(_ value: UInt64) {
        let mask = stackMask
        let kept = mask == 0xFFFF ? gpr[GeneralRegister.RSP] & ~0xFFFF : 0
        gpr[GeneralRegister.RSP] = kept | value & mask
    }

    /// Pushes the low `size` bytes (2, 4 or 8) of `value`. RSP moves only once the bytes are written.
    @inline(always)
    func push(_ value: UInt64, size: UInt8) throws(GuestFault) {
        let pointer = (gpr[GeneralRegister.RSP] &- UInt64(size)) & stackMask
        try store(value, linear: try stackAddress(pointer, size: size, write: true), size: size)
        setStackPointer(pointer)
    }

    /// Pops `size` bytes (2, 4 or 8). RSP moves only once they are read.
    @inline(always)
    func pop(size: UInt8) throws(GuestFault) -> UInt64 {
        let value = try load(linear: try stackAddress(stackPointer, size: size, write: false), size: size)
        setStackPointer(stackPointer &+ UInt64(size))
        return value
    }

    /// The linear address of `size` bytes at `offset` in the stack segment; `offset` is wrapped to the stack's width here.
    @inline(always)
    func stackAddress(_ offset: UInt64, size: UInt8, write: Bool) throws(GuestFault) -> UInt64 {
        try linearAddress(
            segment: UInt8(DAVIT_SS.rawValue), offset: offset & stackMask, size: UInt64(size), write: write)
    }
}

// PUSH, POP and their kin as instructions.
extension Interpreter {
    @inline(never)
    func pushOperand(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        switch instruction.form {
        case .z: try push(gpr[Int(instruction.reg & 15)], size: size)
        case .i: try push(UInt64(bitPattern: instruction.immediate), size: size)
        default: try push(try readE(instruction, size: size), size: size)
        }
    }

    @inline(never)
    func popOperand(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        // An address from RSP counts with RSP as it is after the pop; a popped RSP is what was on the stack.
        let old = gpr[GeneralRegister.RSP]
        let value = try pop(size: size)
        if instruction.form == .z {
            writeRegister(instruction.reg, size: size, rex: true, value)
            return
        }
        do throws(GuestFault) {
            try writeE(instruction, size: size, value)
        } catch {
            gpr[GeneralRegister.RSP] = old
            throw error
        }
    }

    /// PUSHA, PUSHAD: RSP moves when all is written, and its value from before is pushed.
    @inline(never)
    func pushAll(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        var pointer = stackPointer
        for register in 0..<8 {
            pointer &-= UInt64(size)
            try store(gpr[register], linear: try stackAddress(pointer, size: size, write: true), size: size)
        }
        setStackPointer(pointer)
    }

    /// POPA, POPAD: the place of RSP is skipped.
    @inline(never)
    func popAll(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let pointer = stackPointer
        var values: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)
        values.0 = try stackElement(pointer, 0, size)
        values.1 = try stackElement(pointer, 1, size)
        values.2 = try stackElement(pointer, 2, size)
        values.3 = try stackElement(pointer, 4, size)
        values.4 = try stackElement(pointer, 5, size)
        values.5 = try stackElement(pointer, 6, size)
        values.6 = try stackElement(pointer, 7, size)
        writeRegister(7, size: size, rex: true, values.0)
        writeRegister(6, size: size, rex: true, values.1)
        writeRegister(5, size: size, rex: true, values.2)
        writeRegister(3, size: size, rex: true, values.3)
        writeRegister(2, size: size, rex: true, values.4)
        writeRegister(1, size: size, rex: true, values.5)
        writeRegister(0, size: size, rex: true, values.6)
        setStackPointer(pointer &+ 8 &* UInt64(size))
    }

    private func stackElement(_ pointer: UInt64, _ index: UInt64, _ size: UInt8) throws(GuestFault) -> UInt64 {
        try load(linear: try stackAddress(pointer &+ index &* UInt64(size), size: size, write: false), size: size)
    }

    @inline(never)
    func enter(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let level = instruction.immediate2 & 31
        var pointer = stackPointer &- UInt64(size)
        try store(
            gpr[GeneralRegister.RBP], linear: try stackAddress(pointer, size: size, write: true), size: size)
        // On a 16-bit stack the upper half of ESP is part of the frame pointer all the same.
        let frame = gpr[GeneralRegister.RSP] & ~stackMask | pointer & stackMask
        if level > 0 {
            var outer = gpr[GeneralRegister.RBP]
            for _ in 1..<max(level, 1) {
                outer &-= UInt64(size)
                let value = try load(linear: try stackAddress(outer, size: size, write: false), size: size)
                pointer &-= UInt64(size)
                try store(value, linear: try stackAddress(pointer, size: size, write: true), size: size)
            }
            pointer &-= UInt64(size)
            try store(frame, linear: try stackAddress(pointer, size: size, write: true), size: size)
        }
        pointer &-= UInt64(bitPattern: instruction.immediate)
        // The new top must be writable, though nothing is written there.
        _ = try hostPointerForWrite(
            linear: try stackAddress(pointer, size: size, write: true), size: Int(size))
        writeRegister(5, size: size, rex: true, frame)
        setStackPointer(pointer)
    }

    @inline(never)
    func leave(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let pointer = gpr[GeneralRegister.RBP] & stackMask
        let value = try load(linear: try stackAddress(pointer, size: size, write: false), size: size)
        setStackPointer(pointer &+ UInt64(size))
        writeRegister(5, size: size, rex: true, value)
    }
}
