import COracle
import SoftEngine

/// Makes cases: an encoding that a row of the opcode table allows, and a state in which it does something.
struct CaseGenerator {
    typealias Row = InstructionCatalog.Row
    typealias Key = InstructionCatalog.Key
    typealias Decoded = InstructionBench.Decoded

    var random: RandomSource
    let bench: InstructionBench
    let mxcsrMask = oracle_mxcsr_mask()
    var mode = CodeMode.long64

    /// Where in the code the ModRM byte stands; -1 without one.
    var modrmPosition = -1
    /// Linear bases of ES CS SS DS FS GS.
    var bases: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0)

    init(random: RandomSource, bench: InstructionBench) {
        self.random = random
        self.bench = bench
    }

    /// Chooses the mode of the next case.
    mutating func chooseMode() -> CodeMode {
        switch random.below(100) {
        case 0..<70: mode = .long64
        case 70..<82: mode = .flat32
        case 82..<91: mode = .segmented32
        default: mode = .segmented16
        }
        return mode
    }

    /// Fills `c` with a case made from `row`, in the mode chosen. Returns what the decoder thinks of it; nil if it is none that could be compared.
    mutating func generate(_ row: borrowing Row, into c: UnsafeMutablePointer<oracle_case>) -> Decoded? {
        encode(row, oracle_case_code(c))
        return fillState(c, isVector: row.isVector)
    }

    /// Fills `c` with a case for an encoding that is given, in the mode given.
    mutating func generate(
        code: [UInt8], mode: CodeMode, into c: UnsafeMutablePointer<oracle_case>
    ) -> Decoded? {
        self.mode = mode
        for i in 0..<16 { oracle_case_code(c)[i] = i < code.count ? code[i] : 0xCC }
        modrmPosition = -1
        return fillState(c, isVector: true)
    }

    private mutating func fillState(_ c: UnsafeMutablePointer<oracle_case>, isVector: Bool) -> Decoded? {
        guard let decoded = bench.decode(oracle_case_code(c), available: 15, codeSize: mode.codeSize) else {
            return nil
        }
        // EDX:EAX is chosen below and must not be an address too.
        if decoded.hint == .stateComponents && [0, 2].contains(where: { $0 == decoded.base || $0 == decoded.index }) {
            return nil
        }
        c.pointee.code_length = UInt32(decoded.length)
        c.pointee.flags = decoded.hasSteps ? ORACLE_STOP_BY_BREAKPOINT.rawValue : 0
        oracle_case_overlays(c)[0].count = 0
        oracle_case_overlays(c)[1].count = 0
        fillSegments(c, decoded)
        fillRegisters(c, decoded)
        fillExtendedState(oracle_case_xsave(c), isVector: isVector)
        var operand: UInt64?
        if decoded.isMemory { operand = aimMemoryOperand(c, decoded) }
        fillOverlays(c, decoded, operand: operand)
        return decoded
    }

    // MARK: Encoding

    mutating func encode(_ row: borrowing Row, _ code: UnsafeMutablePointer<UInt8>) {
        var count = 0
        func emit(_ byte: UInt8) {
            code[count] = byte
            count += 1
        }
        let isLong = mode == .long64
        let mask = row.mask
        let match = row.match

        if random.chance(mode.isSegmented ? 15 : 6) {
            let overrides: [UInt8] =
                isLong ? [0x64, 0x65, 0x64, 0x65, 0x2E, 0x3E] : [0x2E, 0x36, 0x26, 0x3E, 0x64, 0x65]
            emit(overrides[Int(random.below(UInt64(overrides.count)))])
        }
        if random.chance(mode == .segmented16 ? 40 : 5) { emit(0x67) }
        if random.chance(row.isLockable ? 10 : 1) { emit(0xF0) }

        // The mandatory prefix, or any.
        var prefix: UInt8 = 0
        let prefixes = Key.p66 | Key.pF3 | Key.pF2
        if mask & prefixes == prefixes {
            prefix = match & Key.p66 != 0 ? 0x66 : match & Key.pF3 != 0 ? 0xF3 : match & Key.pF2 != 0 ? 0xF2 : 0
        } else if row.isString && random.chance(50) {
            prefix = random.chance(50) ? 0xF3 : 0xF2
        } else if random.chance(mode == .segmented16 ? 40 : 20) {
            prefix = 0x66
        } else if mask & prefixes == 0 && random.chance(3) {
            prefix = random.chance(50) ? 0xF3 : 0xF2
        }
        let w = mask & Key.w != 0 ? match & Key.w != 0 : random.chance(35)
        let needsB = mask & match & Key.rexB != 0

        if row.isVEX {
            let pp: UInt8 = prefix == 0x66 ? 1 : prefix == 0xF3 ? 2 : prefix == 0xF2 ? 3 : 0
            let l = mask & Key.l != 0 ? match & Key.l != 0 : random.chance(50)
            let vvvv: UInt8 =
                mask & Key.vvvv != 0 ? 15 : UInt8(random.below(isLong ? 16 : 8)) | (isLong ? 0 : 8)
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
        if row.isFarPointer && random.chance(70) { plantFarPointer(code, at: row.hasModRM ? -1 : opcodeEnd(code, row)) }
    }

    private func opcodeEnd(_ code: UnsafeMutablePointer<UInt8>, _ row: borrowing Row) -> Int {
        var at = 0
        while code[at] != row.opcode { at += 1 }
        return at + 1
    }

    /// A far pointer in the code gets a selector that exists; 16- or 32-bit offset, whichever it is, one of the two stands.
    private mutating func plantFarPointer(_ code: UnsafeMutablePointer<UInt8>, at place: Int) {
        guard place >= 0 && place + 6 <= 15 else { return }
        let selector = random.pick(CodeMode.codeSelectors)
        let offset = random.below(ORACLE_CODE_SIZE)
        let isShort = (mode == .segmented16) != (0..<place).contains { code[$0] == 0x66 }
        let bytes = isShort ? offset & 0xFFFF | selector << 16 : offset | selector << 32
        for i in 0..<6 { code[place + i] = UInt8(truncatingIfNeeded: bytes >> UInt64(i * 8)) }
    }
}
