import COracle
import SoftEngine

// Registers of every kind.
extension CaseGenerator {
    mutating func fillSegments(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded) {
        let registers = oracle_case_registers(c)
        registers.pointee.ds = 0x2B
        registers.pointee.es = 0x2B
        registers.pointee.ss = 0x2B
        registers.pointee.fs = 0
        registers.pointee.gs = 0
        registers.pointee.fs_base = ORACLE_FS_BASE
        registers.pointee.gs_base = ORACLE_GS_BASE
        bases = (0, 0, 0, 0, 0, 0)
        switch mode {
        case .long64:
            registers.pointee.cs = 0x33
            bases.4 = ORACLE_FS_BASE
            bases.5 = ORACLE_GS_BASE
        case .flat32: registers.pointee.cs = 0x23
        case .segmented32, .segmented16:
            registers.pointee.cs = CodeMode.selector(mode == .segmented32 ? ORACLE_CODE32 : ORACLE_CODE16)
            // With a stack of 16 bits, the kernel's remains in RSP would be the address after a far call into 64-bit mode.
            let isWideStack =
                decoded.hint == .farPointer || (mode == .segmented32 ? random.chance(80) : random.chance(20))
            registers.pointee.ss = CodeMode.selector(isWideStack ? ORACLE_DATA32 : ORACLE_DATA16)
            registers.pointee.ds = CodeMode.selector(random.chance(80) ? ORACLE_DATA32 : ORACLE_EXPAND_DOWN)
            registers.pointee.es = CodeMode.selector(random.chance(80) ? ORACLE_HIGH_DATA : ORACLE_DATA16)
            registers.pointee.fs = CodeMode.selector(ORACLE_EXPAND_DOWN)
            registers.pointee.gs = CodeMode.selector(ORACLE_READ_ONLY)
            let data = ORACLE_DATA_ADDRESS
            let es = registers.pointee.es == CodeMode.selector(ORACLE_HIGH_DATA) ? data + 0x1000 : data
            bases = (es, ORACLE_CODE_ADDRESS, data, data, data, data)
        }
    }

    /// An offset that leads into the data, by DS.
    private mutating func pointer() -> UInt64 { OperandValues.pointer(&random) &- bases.3 }

    mutating func fillRegisters(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded) {
        let registers = oracle_case_registers(c)
        let gpr = oracle_gpr(registers)
        for i in 0..<16 {
            gpr[i] = OperandValues.register(&random)
            if mode.isSegmented && random.chance(30) { gpr[i] = pointer() }
        }
        if random.chance(90) { gpr[4] = pointer() & ~7 }
        switch decoded.hint {
        case .string:
            gpr[6] = pointer()
            gpr[7] = random.chance(30) ? gpr[6] &+ random.below(16) &- 8 : pointer()
            // A repeated instruction that runs off the data ends in a fault soon enough.
            gpr[1] = random.chance(95) ? random.below(24) : random.below(4096)
        case .stack: gpr[5] = pointer()
        case .implicitPointer:
            gpr[7] = pointer()
            gpr[3] = pointer()
            gpr[0] = pointer()
        case .bitOffset:
            if random.chance(70) { gpr[Int(decoded.reg & 15)] = random.below(16384) &- 8192 }
        case .division:
            if random.chance(50) { gpr[2] = random.chance(50) ? 0 : random.below(64) }
        case .stateComponents:
            gpr[0] = random.below(8)
            gpr[2] = 0
        case .selector:
            gpr[Int(decoded.rm & 15)] = random.pick(CodeMode.selectors) | (random.chance(20) ? random.next() << 16 : 0)
        case .none, .compareExchange, .controlWord, .legacyArea, .farPointer: break
        }
        if mode != .long64 { for i in 0..<16 { gpr[i] = i < 8 ? gpr[i] & 0xFFFF_FFFF : 0 } }
        if mode == .segmented16 && random.chance(80) {
            // Addresses of 16 bits take the lower half; 32-bit ones are within the limit only if the upper is clear.
            for i in 3..<8 { gpr[i] &= 0xFFFF }
        }
        // A far call into 64-bit code may push below 0, that is above 4 GiB. Linux takes a page fault there that 32-bit code raises for
        // an old CPU's defect, and tries again for ever.
        if mode != .long64 && decoded.hint == .farPointer && gpr[4] < 64 { gpr[4] += 64 }

        var offset = random.below(ORACLE_CODE_SIZE - 64)
        switch random.below(100) {
        case 0..<4: offset = 0x1000 - random.below(UInt64(decoded.length))
        // The breakpoint behind the others needs a place.
        case 4..<6 where !decoded.hasSteps && !decoded.reachesBeyond:
            offset = ORACLE_CODE_SIZE - random.below(UInt64(decoded.length)) - 1
        default: break
        }
        c.pointee.code_address = ORACLE_CODE_ADDRESS + offset
        registers.pointee.rip = ORACLE_CODE_ADDRESS + offset - bases.1
        // DF, AC and the arithmetic flags.
        let flags = random.next()
        registers.pointee.rflags =
            0x202 | flags & 0x8D5 | (random.chance(15) ? 0x400 : 0) | (random.chance(3) ? 1 << 18 : 0)
    }

    mutating func fillExtendedState(_ xsave: UnsafeMutablePointer<UInt8>, isVector: Bool) {
        let raw = UnsafeMutableRawPointer(xsave)
        for start in [160, 576] {
            for at in stride(from: start, to: start + 256, by: 8) {
                raw.storeBytes(of: OperandValues.lane(&random), toByteOffset: at, as: UInt64.self)
            }
        }
        for at in stride(from: 512, to: 576, by: 8) { raw.storeBytes(of: 0, toByteOffset: at, as: UInt64.self) }
        raw.storeBytes(of: 7, toByteOffset: 512, as: UInt64.self)
        fillX87(raw)

        // MXCSR: exceptions masked mostly, any rounding, DAZ and FTZ sometimes.
        var mxcsr: UInt32 = 0x1F80
        let bits = UInt32(truncatingIfNeeded: random.next())
        if random.chance(50) { mxcsr |= bits & 0x6000 }
        if random.chance(20) { mxcsr |= bits & 0x8040 }
        if random.chance(30) { mxcsr |= bits & 0x3F }
        if random.chance(5) { mxcsr |= 1 << 17 & mxcsrMask }
        if isVector && random.chance(15) { mxcsr &= ~(bits & 0x1F80) }
        raw.storeBytes(of: mxcsr, toByteOffset: 24, as: UInt32.self)
        raw.storeBytes(of: mxcsrMask, toByteOffset: 28, as: UInt32.self)
    }

    private mutating func fillX87(_ raw: UnsafeMutableRawPointer) {
        for at in stride(from: 32, to: 160, by: 16) {
            let significand: UInt64
            let exponent: UInt64
            switch random.below(10) {
            case 0...3:
                significand = random.pick(OperandValues.extendedSignificands)
                exponent = random.pick(OperandValues.extendedExponents)
            case 4...7:
                significand = random.next() | 1 << 63
                exponent = 0x3FF0 + random.below(32) | random.below(2) << 15
            default:
                significand = random.next()
                exponent = random.next()
            }
            raw.storeBytes(of: significand, toByteOffset: at, as: UInt64.self)
            raw.storeBytes(of: exponent & 0xFFFF, toByteOffset: at + 8, as: UInt64.self)
        }
        let bits = UInt16(truncatingIfNeeded: random.next())
        var control: UInt16 = 0x37F
        if random.chance(50) { control = control & ~0xF00 | bits & 0xF00 }
        if random.chance(10) { control &= ~(bits & 0x3F) }
        var status = UInt16(truncatingIfNeeded: random.next()) & 0x4700
        if random.chance(50) { status |= UInt16(random.below(8)) << 11 }
        // Exception flags; the summary bits follow from the masks.
        if random.chance(20) { status |= bits >> 6 & 0x7F }
        if random.chance(80) { status &= ~(~control & 0x3F) }
        if status & ~control & 0x3F != 0 { status |= 0x8080 }
        raw.storeBytes(of: control, toByteOffset: 0, as: UInt16.self)
        raw.storeBytes(of: status, toByteOffset: 2, as: UInt16.self)
        let tags: UInt16 = random.chance(60) ? 0xFF : random.chance(50) ? 0 : UInt16(random.below(256))
        raw.storeBytes(of: tags, toByteOffset: 4, as: UInt16.self)
        // Pointers without an exception to point at are kept by some CPUs only.
        let isPending = status & 0x80 != 0
        raw.storeBytes(of: isPending ? UInt16(random.below(0x800)) : 0, toByteOffset: 6, as: UInt16.self)
        raw.storeBytes(of: isPending ? random.next() & 0xFFFF_FFFF : 0, toByteOffset: 8, as: UInt64.self)
        raw.storeBytes(of: isPending ? random.next() & 0xFFFF_FFFF : 0, toByteOffset: 16, as: UInt64.self)
    }
}
