import CDavit
import X86

// Bit tests and scans, BMI1, BMI2, ADX, CRC32, byte swaps.
extension Interpreter {
    /// BT BTS BTR BTC. A register offset reaches outside a memory operand: it addresses a bit string (SDM vol. 2, 3.1.1.9).
    @inline(always)
    func bitTest(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        let size = instruction.operandSize
        let flags = cpu.pointee.rflags
        let bits = UInt64(size) &* 8
        let isRegisterOffset = instruction.form == .eg
        let bit = isRegisterOffset ? readG(instruction, size: size) : UInt64(bitPattern: instruction.immediate)
        guard instruction.isMemory else {
            let a = readRegister(instruction.rm, size: size, rex: true)
            let result = ALUOperation(kind: kind, size: size, flags: flags, b: bit)(a)
            if kind != .bt { writeRegister(instruction.rm, size: size, rex: true, result.value) }
            setArithmeticFlags(result.flags)
            return
        }
        var offset = effectiveOffset(instruction)
        if isRegisterOffset {
            let signed = Int64(bitPattern: Self.signExtend(bit, size: size))
            offset &+= UInt64(bitPattern: (signed >> Int64(bits.trailingZeroBitCount)) &* Int64(size))
            offset &= Self.mask(instruction.addressSize)
        }
        let writes = kind != .bt
        let linear = try linearAddress(
            segment: instruction.segment, offset: offset, size: UInt64(size), write: writes)
        // The offset is taken inside the operand, so that the host's instruction never sees another.
        let inside = bit & (bits &- 1)
        let operation = ALUOperation(kind: kind, size: size, flags: flags, b: inside)
        if writes {
            _ = try modify(linear: linear, locked: instruction.prefixes.contains(.lock), operation)
        } else {
            setArithmeticFlags(operation(try load(linear: linear, size: size)).flags)
        }
    }

    /// Ones in the bits of an address or operand of `size` bytes: 1, 2, 4 or 8.
    @inline(always)
    static func mask(_ size: UInt8) -> UInt64 { UInt64.max >> ((64 &- UInt64(size) &* 8) & 63) }

    /// POPCNT LZCNT TZCNT: G from E.
    @inline(always)
    func count(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let result = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags, b: e)(0)
        writeG(instruction, size: size, result.value)
        setArithmeticFlags(result.flags)
    }

    /// BSF and BSR: G from E; G stays where E is zero.
    @inline(always)
    func scan(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let result = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags, b: e)(
            gpr[Int(instruction.reg & 15)])
        gpr[Int(instruction.reg & 15)] = result.value
        setArithmeticFlags(result.flags)
    }

    /// ADCX ADOX: G with E.
    @inline(always)
    func addWithOneFlag(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let result = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags, b: e)(
            readG(instruction, size: size))
        writeG(instruction, size: size, result.value)
        setArithmeticFlags(result.flags)
    }

    /// ANDN BEXTR BZHI: G from VEX.vvvv and E.
    @inline(always)
    func bitField(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        try requireVEX()
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let b = readRegister(instruction.vvvv, size: size, rex: true)
        let isBFirst = instruction.form == .gbe
        let operation = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags, b: isBFirst ? e : b)
        let result = operation(isBFirst ? b : e)
        writeG(instruction, size: size, result.value)
        setArithmeticFlags(result.flags)
    }

    /// BLSR BLSMSK BLSI: VEX.vvvv from E.
    @inline(always)
    func lowestBit(_ instruction: borrowing Instruction, _ kind: Operation) throws(GuestFault) {
        try requireVEX()
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let result = ALUOperation(kind: kind, size: size, flags: cpu.pointee.rflags, b: e)(0)
        writeRegister(instruction.vvvv, size: size, rex: true, result.value)
        setArithmeticFlags(result.flags)
    }

    /// PDEP and PEXT: G from VEX.vvvv under the mask E.
    @inline(never)
    func gatherBits(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireVEX()
        let size = instruction.operandSize
        let mask = try readE(instruction, size: size)
        let source = readRegister(instruction.vvvv, size: size, rex: true)
        writeG(
            instruction, size: size,
            instruction.operation == .pdep ? davit_pdep(source, mask) : davit_pext(source, mask))
    }

    /// MULX: VEX.vvvv the low, G the high half of rDX times E. If they are one register it gets the high half.
    @inline(never)
    func multiplyWithoutFlags(_ instruction: borrowing Instruction) throws(GuestFault) {
        try requireVEX()
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let result = davit_mul(gpr[GeneralRegister.RDX], 0, e, 0, UInt32(size))
        writeRegister(instruction.vvvv, size: size, rex: true, result.low)
        writeG(instruction, size: size, result.high)
    }

    @inline(never)
    func crc32(_ instruction: borrowing Instruction) throws(GuestFault) {
        let size = instruction.operandSize
        let e = try readE(instruction, size: size)
        let crc = davit_crc32(gpr[Int(instruction.reg & 15)], e, UInt32(size))
        writeRegister(instruction.reg, size: 8, rex: true, crc)
    }

    @inline(never)
    func byteSwap(_ instruction: borrowing Instruction) {
        let n = Int(instruction.reg & 15)
        switch instruction.operandSize {
        case 8: gpr[n] = gpr[n].byteSwapped
        case 4: gpr[n] = UInt64(UInt32(truncatingIfNeeded: gpr[n]).byteSwapped)
        default: gpr[n] = davit_bswap16(gpr[n])
        }
    }

    /// RDRAND and RDSEED.
    @inline(never)
    func random(_ instruction: borrowing Instruction, _ result: davit_result) {
        let size = instruction.operandSize
        writeRegister(instruction.rm, size: size, rex: true, result.value)
        setArithmeticFlags(result.flags)
    }
}
