import COracle
import SoftEngine

/// Makes cases: an encoding that a row of the opcode table allows, and a state in which it does something.
struct CaseGenerator {
    typealias Row = InstructionCatalog.Row
    typealias Key = InstructionCatalog.Key

    var random: RandomSource
    let bench: InstructionBench
    private let mxcsrMask = oracle_mxcsr_mask()
    /// 8 or 4.
    var codeSize: UInt32 = 8

    /// Where in the code the ModRM byte stands; -1 without one.
    private var modrmPosition = -1
    private var count = 0

    init(random: RandomSource, bench: InstructionBench) {
        self.random = random
        self.bench = bench
    }

    /// Fills `c` with a case made from `row`. Returns what the decoder thinks of it, nil if the encoding came out too long.
    mutating func generate(_ row: borrowing Row, into c: UnsafeMutablePointer<oracle_case>) -> InstructionBench.Decoded?
    {
        let code = oracle_case_code(c)
        encode(row, code)
        guard let decoded = bench.decode(code, available: 15, codeSize: codeSize) else { return nil }
        if decoded.hint == .stateComponents && [0, 2].contains(where: { $0 == decoded.base || $0 == decoded.index }) {
            return nil
        }
        c.pointee.code_length = UInt32(decoded.length)
        c.pointee.flags = decoded.hasSteps ? ORACLE_STOP_BY_BREAKPOINT.rawValue : 0
        fillRegisters(c, decoded)
        fillExtendedState(oracle_case_xsave(c), isVector: row.isVector)
        if decoded.isMemory { aimMemoryOperand(c, decoded, isGather: row.isGather) }
        return decoded
    }

    // MARK: Encoding

    private mutating func encode(_ row: borrowing Row, _ code: UnsafeMutablePointer<UInt8>) {
        count = 0
        func emit(_ byte: UInt8) {
            code[count] = byte
            count += 1
        }
        let isLong = codeSize == 8
        let mask = row.mask
        let match = row.match

        if random.chance(6) {
            let overrides: [UInt8] = isLong ? [0x64, 0x65, 0x64, 0x65, 0x2E, 0x3E] : [0x2E, 0x36, 0x26, 0x3E]
            emit(overrides[Int(random.below(UInt64(overrides.count)))])
        }
        if isLong && random.chance(5) { emit(0x67) }
        if random.chance(row.isLockable ? 10 : 1) { emit(0xF0) }

        // The mandatory prefix, or any.
        var prefix: UInt8 = 0
        let prefixes = Key.p66 | Key.pF3 | Key.pF2
        if mask & prefixes == prefixes {
            prefix = match & Key.p66 != 0 ? 0x66 : match & Key.pF3 != 0 ? 0xF3 : match & Key.pF2 != 0 ? 0xF2 : 0
        } else if row.isString && random.chance(50) {
            prefix = random.chance(50) ? 0xF3 : 0xF2
        } else if random.chance(20) {
            prefix = 0x66
        } else if mask & prefixes == 0 && random.chance(3) {
            prefix = random.chance(50) ? 0xF3 : 0xF2
        }
        let w = mask & Key.w != 0 ? match & Key.w != 0 : random.chance(35)
        let needsB = mask & match & Key.rexB != 0

        if row.isVEX {
            let pp: UInt8 = prefix == 0x66 ? 1 : prefix == 0xF3 ? 2 : prefix == 0xF2 ? 3 : 0
            let l = mask & Key.l != 0 ? match & Key.l != 0 : random.chance(50)
            let vvvv: UInt8 = mask & Key.vvvv != 0 ? 15 : UInt8(random.below(isLong ? 16 : 8)) | (isLong ? 0 : 8)
            let low = vvvv << 3 | (l ? 4 : 0) | pp
            // Outside 64-bit mode R and X are 1, or it would be LES or LDS.
            let extensions = isLong ? UInt8(truncatingIfNeeded: random.next()) & 0xE0 : 0xE0
            if row.map == 1 && !w && random.chance(50) {
                emit(0xC5)
                emit((extensions & 0x80) | low)
            } else {
                emit(0xC4)
                emit(extensions | row.map)
                emit((w ? 0x80 : 0) | low)
            }
        } else {
            if prefix != 0 { emit(prefix) }
            if isLong && (w || needsB || random.chance(40)) {
                emit(0x40 | (w ? 8 : 0) | (needsB ? 1 : 0) | UInt8(truncatingIfNeeded: random.next()) & 7)
            }
            if row.map > 0 { emit(0x0F) }
            if row.map == 2 { emit(0x38) }
            if row.map == 3 { emit(0x3A) }
        }
        emit(row.opcode)

        modrmPosition = -1
        if row.hasModRM {
            modrmPosition = count
            let low = UInt8(truncatingIfNeeded: mask)
            var modrm = UInt8(truncatingIfNeeded: random.next()) & ~low | UInt8(truncatingIfNeeded: match) & low
            let isMemory = mask & Key.memory != 0 ? match & Key.memory != 0 : random.chance(60)
            if isMemory {
                if modrm >= 0xC0 { modrm -= UInt8(random.below(3) + 1) << 6 }
                if row.isGather { modrm = modrm & 0xF8 | 4 }
            } else {
                modrm |= 0xC0
            }
            emit(modrm)
        }
        let fill: UInt8? = random.chance(20) ? [0, 1, 0xFF, 0x80][Int(random.below(4))] : nil
        while count < 15 { emit(fill ?? UInt8(truncatingIfNeeded: random.next())) }
        code[15] = 0xCC
    }

    // MARK: State

    private mutating func fillRegisters(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: InstructionBench.Decoded) {
        let registers = oracle_case_registers(c)
        let gpr = oracle_gpr(registers)
        for i in 0..<16 { gpr[i] = OperandValues.register(&random) }
        if random.chance(90) { gpr[4] = OperandValues.pointer(&random) & ~7 }
        switch decoded.hint {
        case .string:
            gpr[6] = OperandValues.pointer(&random)
            gpr[7] = random.chance(30) ? gpr[6] &+ random.below(16) &- 8 : OperandValues.pointer(&random)
            // A repeated instruction that runs off the data ends in a fault soon enough.
            gpr[1] = random.chance(95) ? random.below(24) : random.below(4096)
        case .stack: gpr[5] = OperandValues.pointer(&random)
        case .implicitPointer:
            gpr[7] = OperandValues.pointer(&random)
            gpr[3] = OperandValues.pointer(&random)
        case .bitOffset:
            if random.chance(70) { gpr[Int(decoded.reg & 15)] = random.below(16384) &- 8192 }
        case .division:
            if random.chance(50) { gpr[2] = random.chance(50) ? 0 : random.below(64) }
        case .stateComponents:
            gpr[0] = random.below(8)
            gpr[2] = 0
        case .none, .compareExchange: break
        }
        if codeSize == 4 { for i in 0..<16 { gpr[i] = i < 8 ? gpr[i] & 0xFFFF_FFFF : 0 } }

        var rip = ORACLE_CODE_ADDRESS + random.below(ORACLE_CODE_SIZE - 64)
        if random.chance(5) { rip = ORACLE_CODE_ADDRESS + 0x1000 - random.below(UInt64(decoded.length)) }
        registers.pointee.rip = rip
        // DF, and the arithmetic flags.
        let flags = random.next()
        registers.pointee.rflags = 0x202 | flags & 0x8D5 | (random.chance(15) ? 0x400 : 0)
        registers.pointee.cs = codeSize == 8 ? 0x33 : 0x23
        registers.pointee.ss = 0x2B
    }

    private mutating func fillExtendedState(_ xsave: UnsafeMutablePointer<UInt8>, isVector: Bool) {
        let raw = UnsafeMutableRawPointer(xsave)
        for at in stride(from: 160, to: 416, by: 8) {
            raw.storeBytes(of: OperandValues.lane(&random), toByteOffset: at, as: UInt64.self)
        }
        for at in stride(from: 576, to: 832, by: 8) {
            raw.storeBytes(of: OperandValues.lane(&random), toByteOffset: at, as: UInt64.self)
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

    // MARK: Memory operands

    /// Where the operand should lie: mostly inside the data, now and then across an edge or where nothing is.
    private mutating func target(size: UInt64) -> UInt64 {
        let end = ORACLE_DATA_ADDRESS + ORACLE_DATA_SIZE
        let alignment = random.chance(70) ? max(size, 1) : 1
        switch random.below(100) {
        case 0..<3: return ORACLE_DATA_ADDRESS + 0x1000 - random.below(size + 1)
        case 3..<5: return end - random.below(size + 1)
        case 5..<7: return end + random.below(ORACLE_CONSTANT_SIZE - size)
        case 7: return end + ORACLE_CONSTANT_SIZE - random.below(size + 1)
        case 8: return ORACLE_DATA_ADDRESS - random.below(size + 1)
        case 9: return codeSize == 8 ? random.next() : random.next() & 0xFFFF_FFFF
        default:
            let offset = random.below(ORACLE_DATA_SIZE - size)
            return ORACLE_DATA_ADDRESS + offset - offset % alignment
        }
    }

    /// Sets base and index, or patches the displacement, so that the memory operand lies at a chosen address.
    private mutating func aimMemoryOperand(
        _ c: UnsafeMutablePointer<oracle_case>, _ decoded: InstructionBench.Decoded, isGather: Bool
    ) {
        let registers = oracle_case_registers(c)
        let gpr = oracle_gpr(registers)
        var goal = target(size: UInt64(decoded.operandSize))
        if decoded.segment == 4 { goal &-= ORACLE_FS_BASE }
        if decoded.segment == 5 { goal &-= ORACLE_GS_BASE }
        let displacement = UInt64(bitPattern: decoded.displacement)
        let scale = UInt64(decoded.scale)
        if isGather { return aimGather(c, decoded, goal: goal) }

        var rest = goal
        let hasIndex = decoded.index < 16
        let index = Int(decoded.index & 15)
        if decoded.base < 16 {
            rest &-= displacement
            let base = Int(decoded.base)
            if hasIndex && index == base {
                // x * (1 + 2^scale) = rest.
                if scale == 0 {
                    rest >>= 1
                } else {
                    let inverses: [UInt64] = [0xAAAA_AAAA_AAAA_AAAB, 0xCCCC_CCCC_CCCC_CCCD, 0x8E38_E38E_38E3_8E39]
                    rest = rest &* inverses[Int(scale) - 1]
                }
            } else if hasIndex {
                rest &-= gpr[index] << scale
            }
            setAddressRegister(&gpr[base], rest, decoded)
            if decoded.addressSize == 4 && codeSize == 8 && random.chance(50) { gpr[base] |= random.next() << 32 }
        } else {
            if decoded.base == 16 { rest &-= registers.pointee.rip &+ UInt64(decoded.length) }
            if hasIndex {
                gpr[index] = random.below(0x1000)
                rest &-= gpr[index] << scale
            }
            patchDisplacement(c, rest)
        }
        if decoded.hint == .compareExchange && random.chance(50) {
            gpr[0] = OperandValues.lane(&random)
        }
    }

    private func setAddressRegister(_ register: inout UInt64, _ value: UInt64, _ decoded: InstructionBench.Decoded) {
        register = decoded.addressSize == 8 ? value : value & 0xFFFF_FFFF
    }

    /// The displacement of a form without a base register has 32 bits and follows ModRM and SIB.
    private func patchDisplacement(_ c: UnsafeMutablePointer<oracle_case>, _ value: UInt64) {
        guard modrmPosition >= 0 else { return }
        let code = oracle_case_code(c)
        let place = modrmPosition + (code[modrmPosition] & 7 == 4 ? 2 : 1)
        guard place + 4 <= 15 else { return }
        UnsafeMutableRawPointer(code).storeBytes(
            of: UInt32(truncatingIfNeeded: value), toByteOffset: place, as: UInt32.self)
    }

    /// Small indices for most elements, so that they fall into the data.
    private mutating func aimGather(
        _ c: UnsafeMutablePointer<oracle_case>, _ decoded: InstructionBench.Decoded, goal: UInt64
    ) {
        let registers = oracle_case_registers(c)
        if decoded.base < 16 {
            oracle_gpr(registers)[Int(decoded.base)] = goal &- UInt64(bitPattern: decoded.displacement)
        } else {
            patchDisplacement(c, goal)
        }
        guard random.chance(85) else { return }
        let xsave = UnsafeMutableRawPointer(oracle_case_xsave(c))
        let register = Int(decoded.index & 15) * 16
        let isWide = random.chance(50)
        for half in [160, 576] {
            for lane in 0..<2 {
                let low = random.below(512) &- 256
                let value = isWide ? low : low & 0xFFFF_FFFF | (random.below(512) &- 256) << 32
                xsave.storeBytes(of: value, toByteOffset: half + register + lane * 8, as: UInt64.self)
            }
        }
    }
}
