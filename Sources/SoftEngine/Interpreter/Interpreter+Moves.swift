import CDavit
import X86

// Data movement, the stack's and strings' apart.
extension Interpreter {
    @inline(never)
    func mov(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operandSize {
        case 8: try mov(instruction, size: 8)
        case 4: try mov(instruction, size: 4)
        case 2: try mov(instruction, size: 2)
        default: try mov(instruction, size: 1)
        }
    }

    @inline(always)
    private func mov(_ instruction: borrowing Instruction, size: UInt8) throws(GuestFault) {
        switch instruction.form {
        case .ge: writeG(instruction, size: size, try readE(instruction, size: size))
        case .eg: try writeE(instruction, size: size, readG(instruction, size: size))
        case .ei: try writeE(instruction, size: size, UInt64(bitPattern: instruction.immediate))
        case .zi: writeG(instruction, size: size, UInt64(bitPattern: instruction.immediate))
        default: try movOffset(instruction)
        }
    }

    /// The accumulator from or to an absolute offset.
    @inline(never)
    private func movOffset(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let isStore = instruction.form == .offsetFromAccumulator
        let linear = try linearAddress(
            segment: instruction.segment, offset: UInt64(bitPattern: instruction.displacement), size: UInt64(size),
            write: isStore)
        if isStore {
            try store(readRegister(0, size: size, rex: true), linear: linear, size: size)
        } else {
            writeRegister(0, size: size, rex: true, try load(linear: linear, size: size))
        }
    }

    @inline(never)
    func moveZeroExtended(_ instruction: borrowing Instruction) throws(GuestFault) {
        let value =
            instruction.opcode & 1 == 0 ? try readE(instruction, size: 1) : try readE(instruction, size: 2)
        writeG(instruction, size: instruction.operandSize, value)
    }

    /// MOVSX and MOVSXD.
    @inline(never)
    func moveSignExtended(_ instruction: borrowing Instruction) throws(GuestFault) {
        // MOVSXD reads four bytes even if two are all it moves.
        let source: UInt8 = instruction.operation == .movsxd ? 4 : instruction.opcode & 1 &+ 1
        let value = Self.signExtend(try readE(instruction, size: source), size: source)
        writeG(instruction, size: instruction.operandSize, value)
    }

    @inline(never)
    func moveByteSwapped(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let value = instruction.form == .ge ? try readE(instruction, size: size) : readG(instruction, size: size)
        let swapped = value.byteSwapped >> ((64 &- UInt64(size) &* 8) & 63)
        if instruction.form == .ge {
            writeG(instruction, size: size, swapped)
        } else {
            try writeE(instruction, size: size, swapped)
        }
    }

    @inline(never)
    func loadEffectiveAddress(_ instruction: borrowing Instruction) {
        writeG(instruction, size: instruction.operandSize, effectiveOffset(instruction))
    }

    /// CMOVcc. A memory operand is read whatever the condition, and a 32-bit destination always loses its upper half.
    @inline(never)
    func conditionalMove(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let value = try readE(instruction, size: size)
        writeG(instruction, size: size, isTrue(instruction.opcode) ? value : readG(instruction, size: size))
    }

    @inline(never)
    func setOnCondition(_ instruction: borrowing Instruction) throws(GuestFault) {
        try writeE(instruction, size: 1, isTrue(instruction.opcode) ? 1 : 0)
    }

    /// XLAT: AL from the table at rBX.
    @inline(never)
    func translateByte(_ instruction: borrowing Instruction) throws(GuestFault) {
        let offset = gpr[GeneralRegister.RBX] &+ (gpr[GeneralRegister.RAX] & 0xFF)
        let linear = try linearAddress(
            segment: instruction.segment, offset: offset & Self.mask(instruction.addressSize), size: 1, write: false)
        writeRegister(0, size: 1, rex: true, try load(linear: linear, size: 1))
    }

    /// CLFLUSH and its kin: the line is checked as a read is, and nothing else happens.
    @inline(never)
    func checkCacheLine(_ instruction: borrowing Instruction) throws(GuestFault) {
        let linear = try operandAddress(instruction, size: 1, write: false)
        _ = try translate(linear, mode: cpu.pointee.tlb_mode, kind: .read)
    }

    /// CLZERO (AMD APM vol. 3): zeroes the 64 bytes of the cache line at rAX.
    @inline(never)
    func zeroCacheLine(_ instruction: borrowing Instruction) throws(GuestFault) {
        let offset = gpr[GeneralRegister.RAX] & Self.mask(instruction.addressSize) & ~63
        let linear = try linearAddress(segment: instruction.segment, offset: offset, size: 64, write: true)
        for at in stride(from: UInt64(0), to: 64, by: 8) { try store(0, linear: linear &+ at, size: 8) }
    }

    /// Condition codes by the low four bits of an opcode (SDM vol. 1, appendix B).
    @inline(always)
    func isTrue(_ opcode: UInt8) -> Bool {
        // Bit 12 of the copy stands for SF != OF; then each condition is a mask, and its lowest bit says whether it is turned round.
        let flags = cpu.pointee.rflags
        let copy = flags & ~0x1000 | (flags ^ flags << 4) << 1 & 0x1000
        let pair = UInt64(opcode >> 1 & 7)
        // O, B, Z, BE; S, P, L, LE.
        let masks: UInt64 = pair < 4 ? 0x0041_0040_0001_0800 : 0x1040_1000_0004_0080
        return (copy & masks >> (pair & 3 &* 16) & 0xFFFF != 0) != (opcode & 1 != 0)
    }
}
