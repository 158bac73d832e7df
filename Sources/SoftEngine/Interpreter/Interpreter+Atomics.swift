import CDavit
import X86

// Exchanges. With memory XCHG is locked always, the others by prefix; CMPXCHG writes even where it does not exchange.
extension Interpreter {
    @inline(never)
    func exchange(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let g = readG(instruction, size: size)
        guard instruction.isMemory else {
            // In the form with the accumulator `rm` is 0, which is that.
            let rex = instruction.prefixes.contains(.rex)
            let e = readRegister(instruction.rm, size: size, rex: rex)
            writeRegister(instruction.rm, size: size, rex: rex, g)
            writeG(instruction, size: size, e)
            return
        }
        let linear = try operandAddress(instruction, size: UInt64(size), write: true)
        let old = try modify(
            linear: linear, locked: true, ALUOperation(kind: .xchg, size: size, flags: cpu.pointee.rflags, b: g))
        writeG(instruction, size: size, old)
    }

    @inline(never)
    func exchangeAdd(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let operation = ALUOperation(
            kind: .xadd, size: size, flags: cpu.pointee.rflags, b: readG(instruction, size: size))
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: true)
            let old = try modify(linear: linear, locked: instruction.prefixes.contains(.lock), operation)
            writeG(instruction, size: size, old)
        } else {
            let rex = instruction.prefixes.contains(.rex)
            let e = readRegister(instruction.rm, size: size, rex: rex)
            let result = operation(e)
            writeG(instruction, size: size, e)
            writeRegister(instruction.rm, size: size, rex: rex, result.value)
            setArithmeticFlags(result.flags)
        }
    }

    @inline(never)
    func compareExchange(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let accumulator = readRegister(0, size: size, rex: true)
        let operation = ALUOperation(
            kind: .cmpxchg, size: size, flags: cpu.pointee.rflags, b: accumulator, c: readG(instruction, size: size))
        let old: UInt64
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: true)
            old = try modify(linear: linear, locked: instruction.prefixes.contains(.lock), operation)
        } else {
            let rex = instruction.prefixes.contains(.rex)
            old = readRegister(instruction.rm, size: size, rex: rex)
            let result = operation(old)
            // Without an exchange the whole register stays, upper half included.
            if old == accumulator { writeRegister(instruction.rm, size: size, rex: rex, result.value) }
            setArithmeticFlags(result.flags)
        }
        if old != accumulator { writeRegister(0, size: size, rex: true, old) }
    }

    /// CMPXCHG8B: EDX:EAX with memory, ECX:EBX to it. Only ZF changes.
    @inline(never)
    func compareExchange8(_ instruction: borrowing Instruction) throws(GuestFault) {
        let expected = Self.pair(gpr[GeneralRegister.RDX], gpr[GeneralRegister.RAX])
        let desired = Self.pair(gpr[GeneralRegister.RCX], gpr[GeneralRegister.RBX])
        let linear = try operandAddress(instruction, size: 8, write: true)
        let operation = ALUOperation(
            kind: .cmpxchg8b, size: 8, flags: cpu.pointee.rflags, b: expected, c: desired)
        let old = try modify(linear: linear, locked: instruction.prefixes.contains(.lock), operation)
        if old != expected {
            gpr[GeneralRegister.RAX] = old & 0xFFFF_FFFF
            gpr[GeneralRegister.RDX] = old >> 32
        }
    }

    private static func pair(_ high: UInt64, _ low: UInt64) -> UInt64 { high << 32 | low & 0xFFFF_FFFF }

    /// CMPXCHG16B: RDX:RAX with memory aligned to 16 bytes, RCX:RBX to it. Only ZF changes.
    @inline(never)
    func compareExchange16(_ instruction: borrowing Instruction) throws(GuestFault) {
        // Alignment is judged before the address is: it exists in 64-bit mode only, where FS and GS alone have a base.
        let base = instruction.segment >= 4 ? segments[Int(instruction.segment)].base : 0
        guard (effectiveOffset(instruction) &+ base) & 15 == 0 else { throw .generalProtection }
        let linear = try operandAddress(instruction, size: 16, write: true)
        let low = gpr[GeneralRegister.RAX]
        let high = gpr[GeneralRegister.RDX]
        let newLow = gpr[GeneralRegister.RBX]
        let newHigh = gpr[GeneralRegister.RCX]
        var found = (low: UInt64(0), high: UInt64(0))
        if let place = try hostPointerForWrite(linear: linear, size: 16) {
            let result = davit_compare_exchange_16(place, low, high, newLow, newHigh)
            found = (result.low, result.high)
        } else {
            // A device: the two halves are read and written apart.
            _ = try splitLocked { () throws(GuestFault) in
                found = (try load(linear: linear, size: 8), try load(linear: linear &+ 8, size: 8))
                let equal = found == (low, high)
                try store(equal ? newLow : found.low, linear: linear, size: 8)
                try store(equal ? newHigh : found.high, linear: linear &+ 8, size: 8)
                return 0
            }
        }
        let equal = found == (low, high)
        setFlag(RFLAGS.ZF, equal)
        if !equal {
            gpr[GeneralRegister.RAX] = found.low
            gpr[GeneralRegister.RDX] = found.high
        }
    }
}
