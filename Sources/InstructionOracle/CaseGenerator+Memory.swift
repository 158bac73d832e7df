import COracle
import SoftEngine

// Where memory operands lie, and what stands there.
extension CaseGenerator {
    /// Where the operand should lie: mostly inside the data, now and then across an edge or where nothing is.
    private mutating func target(size: UInt64, isInside: Bool) -> UInt64 {
        let end = ORACLE_DATA_ADDRESS + ORACLE_DATA_SIZE
        let alignment = random.chance(70) ? max(size, 1) : 1
        switch isInside ? 99 : random.below(100) {
        case 0..<3: return ORACLE_DATA_ADDRESS + 0x1000 - random.below(size + 1)
        case 3..<5: return end - random.below(size + 1)
        case 5..<7: return end + random.below(ORACLE_CONSTANT_SIZE - size)
        case 7: return end + ORACLE_CONSTANT_SIZE - random.below(size + 1)
        case 8: return ORACLE_DATA_ADDRESS - random.below(size + 1)
        case 9: return mode == .long64 ? random.next() : random.next() & 0xFFFF_FFFF
        default:
            let offset = random.below(ORACLE_DATA_SIZE - size)
            return ORACLE_DATA_ADDRESS + offset - offset % alignment
        }
    }

    private func base(of segment: UInt8) -> UInt64 {
        switch segment {
        case 0: bases.0
        case 1: bases.1
        case 2: bases.2
        case 3: bases.3
        case 4: bases.4
        default: bases.5
        }
    }

    /// Sets base and index, or patches the displacement, so that the memory operand lies at a chosen address, which is returned.
    mutating func aimMemoryOperand(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded) -> UInt64 {
        let registers = oracle_case_registers(c)
        let gpr = oracle_gpr(registers)
        // State areas are larger than the decoder says, and aligned.
        let isArea = decoded.hint == .stateComponents || decoded.hint == .legacyArea
        let size = isArea ? 832 : UInt64(decoded.operandSize)
        // CPUs check the limits of segments for each part of an area by itself.
        var address = target(size: size, isInside: mode.isSegmented && size > 32)
        if isArea && random.chance(95) { address &= ~63 }
        let goal = address &- base(of: decoded.segment)
        if decoded.isGather {
            aimGather(c, decoded, goal: goal)
            return address
        }
        let displacement = UInt64(bitPattern: decoded.displacement)
        let scale = UInt64(decoded.scale)
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
            switch decoded.addressSize {
            case 8: gpr[base] = rest
            case 4:
                gpr[base] = rest & 0xFFFF_FFFF
                if mode == .long64 && random.chance(50) { gpr[base] |= random.next() << 32 }
            default: gpr[base] = rest & 0xFFFF | (random.chance(50) ? gpr[base] & 0xFFFF_0000 : 0)
            }
        } else {
            if decoded.base == 16 { rest &-= registers.pointee.rip &+ UInt64(decoded.length) }
            if hasIndex {
                gpr[index] = random.below(0x1000)
                rest &-= gpr[index] << scale
            }
            patchDisplacement(c, rest, size: decoded.addressSize == 2 ? 2 : 4)
        }
        if decoded.hint == .compareExchange && random.chance(50) { gpr[0] = OperandValues.lane(&random) }
        return address
    }

    /// The displacement of a form without a base register follows ModRM and SIB.
    private func patchDisplacement(_ c: UnsafeMutablePointer<oracle_case>, _ value: UInt64, size: Int) {
        guard modrmPosition >= 0 else { return }
        let code = oracle_case_code(c)
        let place = modrmPosition + (size == 4 && code[modrmPosition] & 7 == 4 ? 2 : 1)
        guard place + size <= 15 else { return }
        for i in 0..<size { code[place + i] = UInt8(truncatingIfNeeded: value >> UInt64(i * 8)) }
    }

    /// Small indices for most elements, so that they fall into the data.
    private mutating func aimGather(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded, goal: UInt64) {
        let registers = oracle_case_registers(c)
        if decoded.base < 16 {
            oracle_gpr(registers)[Int(decoded.base)] = goal &- UInt64(bitPattern: decoded.displacement)
            if mode != .long64 { oracle_gpr(registers)[Int(decoded.base)] &= 0xFFFF_FFFF }
        } else {
            patchDisplacement(c, goal, size: 4)
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

    // MARK: What stands there

    /// Puts operands into memory that random bytes hardly ever make: selectors, far pointers, MXCSR, headers of state areas.
    mutating func fillOverlays(_ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded, operand: UInt64?) {
        switch decoded.hint {
        case .selector:
            if let operand { put(c, 0, operand, [random.pick(CodeMode.selectors)], width: 2) }
        case .farPointer: putFarPointer(c, decoded, operand)
        case .controlWord:
            guard let operand, random.chance(80) else { return }
            put(c, 0, operand, [UInt64(randomMXCSR())], width: 4)
        case .legacyArea, .stateComponents:
            guard let operand, random.chance(85) else { return }
            let control = 0x37F ^ (random.chance(50) ? random.below(0x1000) : 0)
            let status = random.next() & (random.chance(80) ? 0x7F00 : 0xFFFF)
            let tags = random.next() & 0xFF
            let first = control | status << 16 | tags << 32
            put(c, 0, operand, [first, random.next(), random.next(), UInt64(randomMXCSR())], width: 8)
            guard decoded.hint == .stateComponents else { return }
            var present = random.below(8)
            var layout: UInt64 = 0
            if random.chance(50) { layout = random.below(8) | present | 1 << 63 }
            // Not bits of components that the host may have beside.
            if random.chance(10) { present |= 1 << (20 + random.below(44)) }
            if random.chance(5) { layout |= 1 << (20 + random.below(44)) }
            let reserved: UInt64 = random.chance(5) ? 1 << random.below(64) : 0
            put(c, 1, operand &+ 512, [present, layout, reserved, 0, 0, 0, random.chance(5) ? 1 : 0, 0], width: 8)
        default: break
        }
    }

    private mutating func randomMXCSR() -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: random.next())
        return random.chance(90) ? bits & mxcsrMask : bits
    }

    /// An offset and a selector; on the stack in slots of the operand size, with flags, RSP and SS behind them for IRET.
    private mutating func putFarPointer(
        _ c: UnsafeMutablePointer<oracle_case>, _ decoded: Decoded, _ operand: UInt64?
    ) {
        let width = Int(decoded.operandSize == 0 ? 4 : decoded.operandSize)
        let offset = random.chance(80) ? random.below(ORACLE_CODE_SIZE) : random.next()
        let selector = random.chance(70) ? random.pick(CodeMode.codeSelectors) : random.pick(CodeMode.selectors)
        if let operand {
            // The selector follows the offset at once.
            guard width < 8 else { return put(c, 0, operand, [offset, selector], width: 8) }
            let bits = UInt64(width * 8)
            put(c, 0, operand, [offset & (1 << bits - 1) | selector << bits], width: 8)
            return
        }
        guard decoded.usesStack else { return }
        let stack = oracle_gpr(oracle_case_registers(c))[4] &+ bases.2
        let first = random.chance(50) ? random.pick(CodeMode.selectors) : offset
        let flags: UInt64 = random.next() & 0x3F_7FD7
        let newStack = OperandValues.pointer(&random) &- bases.2
        let newSS: UInt64 = random.chance(80) ? 0x2B : random.pick(CodeMode.selectors)
        let slots = [first, selector, flags, newStack, newSS]
        put(c, 0, stack, slots, width: width)
    }

    /// An overlay of values of `width` bytes each, at a linear address; nothing where it would leave the writable data.
    private func put(
        _ c: UnsafeMutablePointer<oracle_case>, _ number: Int, _ address: UInt64, _ values: [UInt64], width: Int
    ) {
        let offset = address &- ORACLE_DATA_ADDRESS
        let size = UInt64(values.count * width)
        guard offset < ORACLE_DATA_SIZE, size <= ORACLE_DATA_SIZE - offset, size <= UInt64(ORACLE_OVERLAY) else {
            return
        }
        let overlay = oracle_case_overlays(c) + number
        overlay.pointee.offset = UInt32(offset)
        overlay.pointee.count = UInt32(size)
        let bytes = oracle_overlay_bytes(overlay)
        for (i, value) in values.enumerated() {
            for at in 0..<width { bytes[i * width + at] = UInt8(truncatingIfNeeded: value >> UInt64(at * 8)) }
        }
    }
}
