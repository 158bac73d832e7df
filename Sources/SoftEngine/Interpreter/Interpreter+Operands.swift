import CDavit
import X86

// Operands of integer instructions, in the letters of `OperandForm`.
extension Interpreter {
    /// E: ModRM.rm, register or memory.
    @inline(always)
    func readE(_ instruction: borrowing Instruction, size: UInt8) throws(GuestFault) -> UInt64 {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: false)
            return try load(linear: linear, size: size)
        }
        return readRegister(instruction.rm, size: size, rex: instruction.prefixes.contains(.rex))
    }

    @inline(always)
    func writeE(_ instruction: borrowing Instruction, size: UInt8, _ value: UInt64) throws(GuestFault) {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: true)
            try store(value, linear: linear, size: size)
        } else {
            writeRegister(instruction.rm, size: size, rex: instruction.prefixes.contains(.rex), value)
        }
    }

    /// G: ModRM.reg; also Z, the register in the opcode.
    @inline(always)
    func readG(_ instruction: borrowing Instruction, size: UInt8) -> UInt64 {
        readRegister(instruction.reg, size: size, rex: instruction.prefixes.contains(.rex))
    }

    @inline(always)
    func writeG(_ instruction: borrowing Instruction, size: UInt8, _ value: UInt64) {
        writeRegister(instruction.reg, size: size, rex: instruction.prefixes.contains(.rex), value)
    }

    /// Writes CF PF AF ZF SF OF.
    @inline(always)
    func setArithmeticFlags(_ flags: UInt64) {
        cpu.pointee.rflags = cpu.pointee.rflags & ~RFLAGS.arithmetic | flags
    }

    /// Sets or clears one flag.
    @inline(always)
    func setFlag(_ flag: UInt64, _ value: Bool) {
        cpu.pointee.rflags = value ? cpu.pointee.rflags | flag : cpu.pointee.rflags & ~flag
    }

    /// Reads E, computes, writes E back and then the flags. Write access comes first, and LOCK is honoured.
    @inline(always)
    func modifyE(_ instruction: borrowing Instruction, _ operation: ALUOperation) throws(GuestFault) {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(operation.size), write: true)
            _ = try modify(linear: linear, locked: instruction.prefixes.contains(.lock), operation)
        } else {
            let rex = instruction.prefixes.contains(.rex)
            let result = operation(readRegister(instruction.rm, size: operation.size, rex: rex))
            writeRegister(instruction.rm, size: operation.size, rex: rex, result.value)
            setArithmeticFlags(result.flags)
        }
    }

    /// Reads memory, computes, writes it back, then writes the flags. Returns what was there.
    @inline(always)
    func modify(linear: UInt64, locked: Bool, _ operation: ALUOperation) throws(GuestFault) -> UInt64 {
        let size = operation.size
        if !locked, let place = try hostPointerForWrite(linear: linear, size: Int(size)) {
            let old = Self.hostLoad(place, size: size)
            let result = operation(old)
            Self.hostStore(place, size: size, result.value)
            setArithmeticFlags(result.flags)
            return old
        }
        return try modifySlowly(linear: linear, locked: locked, operation)
    }

    /// `modify` where the access is locked, or no host pointer leads to it. Once write access is granted nothing faults.
    @inline(never)
    private func modifySlowly(linear: UInt64, locked: Bool, _ operation: ALUOperation) throws(GuestFault) -> UInt64 {
        let size = operation.size
        let place = try hostPointerForWrite(linear: linear, size: Int(size))
        guard locked else {
            let old = try load(linear: linear, size: size)
            let result = operation(old)
            try store(result.value, linear: linear, size: size)
            setArithmeticFlags(result.flags)
            return old
        }
        guard let place, !Self.crossesLine(place, size: size) else {
            return try splitLocked { () throws(GuestFault) in
                try modifySlowly(linear: linear, locked: false, operation)
            }
        }
        var old = Self.hostLoad(place, size: size)
        while true {
            let result = operation(old)
            let found = davit_compare_exchange(place, old, result.value, UInt32(size))
            if found == old {
                setArithmeticFlags(result.flags)
                return old
            }
            old = found
        }
    }

    /// Runs `body` while no other vCPU runs: a locked instruction without a host instruction to match. (Where the guest's processor
    /// is another engine's, that one's vCPUs go on: they see the access in two halves.)
    func splitLocked(_ body: () throws(GuestFault) -> UInt64) throws(GuestFault) -> UInt64 {
        guard let gates, let gate else { return try body() }
        var result: Result<UInt64, GuestFault> = .success(0)
        gates.runAlone(gate) {
            if gate.mustFlush() { serveFlushRequests() }
            result = Result { () throws(GuestFault) in try body() }
        }
        if gate.enter() { serveFlushRequests() }
        return try result.get()
    }

    /// The operand lies in two cache lines: hosts may slow down or kill a process that locks such.
    @inline(always)
    static func crossesLine(_ place: UnsafeMutableRawPointer, size: UInt8) -> Bool {
        UInt(bitPattern: place) & 63 &+ UInt(size) > 64
    }

    /// Reads 1, 2, 4 or 8 bytes at a place that the MMU has granted.
    @inline(always)
    static func hostLoad(_ place: UnsafeRawPointer, size: UInt8) -> UInt64 {
        // Safe: the caller holds a pointer to `size` bytes of guest RAM, of any alignment.
        switch size {
        case 8: return place.loadUnaligned(as: UInt64.self)
        case 4: return UInt64(place.loadUnaligned(as: UInt32.self))
        case 2: return UInt64(place.loadUnaligned(as: UInt16.self))
        default: return UInt64(place.load(as: UInt8.self))
        }
    }

    @inline(always)
    static func hostStore(_ place: UnsafeMutableRawPointer, size: UInt8, _ value: UInt64) {
        // Safe: as in `hostLoad`, with write access.
        switch size {
        case 8: place.storeBytes(of: value, as: UInt64.self)
        case 4: place.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
        case 2: place.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
        default: place.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
        }
    }
}
