// Legacy prefixes, REX and VEX (SDM vol. 2, 2.1.1, 2.2.1 and 2.3).
extension Decoder {
    /// Reads legacy and REX prefixes and returns the byte after them.
    @inline(__always)
    func readPrefixes(_ reader: inout CodeReader, _ state: inout DecodeState) -> UInt8 {
        var rex: UInt8 = 0
        while true {
            let byte = reader.byte()
            switch byte {
            case 0x66: state.prefixes.insert(.operandSize)
            case 0x67: state.prefixes.insert(.addressSize)
            case 0xF0: state.prefixes.insert(.lock)
            case 0xF2:
                state.prefixes.insert(.repne)
                state.prefixes.remove(.rep)
            case 0xF3:
                state.prefixes.insert(.rep)
                state.prefixes.remove(.repne)
            case 0x26, 0x2E, 0x36, 0x3E:
                state.prefixes.insert(.segment)
                // Ignored in 64-bit mode: an earlier FS or GS stays in force.
                if !state.long { state.segment = byte >> 3 & 3 }
            case 0x64, 0x65:
                state.prefixes.insert(.segment)
                state.segment = byte & 7
            case 0x40...0x4F where state.long:
                rex = byte
                continue
            default:
                if rex != 0 {
                    state.prefixes.insert(.rex)
                    if rex & 8 != 0 { state.prefixes.insert(.w) }
                    state.r = rex << 1 & 8
                    state.x = rex << 2 & 8
                    state.b = rex << 3 & 8
                }
                return byte
            }
            // Only a REX right before the opcode counts.
            rex = 0
        }
    }

    /// Reads the rest of the opcode, VEX included.
    @inline(__always)
    func readOpcode(
        _ first: UInt8, _ reader: inout CodeReader, _ state: inout DecodeState, _ instruction: inout Instruction
    ) {
        switch first {
        case 0x0F:
            let second = reader.byte()
            switch second {
            case 0x38: instruction.map = 2
            case 0x3A: instruction.map = 3
            default:
                instruction.map = 1
                instruction.opcode = second
                return
            }
            instruction.opcode = reader.byte()
        case 0xC4, 0xC5:
            // Outside 64-bit mode a memory operand makes it LES or LDS.
            if state.long || reader.peek() >= 0xC0 {
                readVEX(isLong: first == 0xC4, &reader, &state, &instruction)
            } else {
                instruction.opcode = first
            }
        default: instruction.opcode = first
        }
    }

    private func readVEX(
        isLong: Bool, _ reader: inout CodeReader, _ state: inout DecodeState, _ instruction: inout Instruction
    ) {
        let forbidden: Instruction.Prefixes = [.lock, .rep, .repne, .operandSize, .rex]
        if !state.prefixes.isDisjoint(with: forbidden) { state.isUndefined = true }
        state.prefixes.subtract([.rep, .repne, .operandSize, .rex, .w])
        state.prefixes.insert(.vex)

        var payload = reader.byte()
        state.r = ~payload >> 4 & 8
        state.x = 0
        state.b = 0
        if isLong {
            state.x = ~payload >> 3 & 8
            state.b = ~payload >> 2 & 8
            // Maps above 3 are not the engine's: map 0 has no VEX opcodes.
            instruction.map = payload & 0x1F <= 3 ? payload & 3 : 0
            payload = reader.byte()
            if payload & 0x80 != 0 { state.prefixes.insert(.w) }
        } else {
            instruction.map = 1
        }
        instruction.vvvv = ~payload >> 3 & 15
        state.namesVVVV = instruction.vvvv != 0
        if !state.long {
            // Eight registers only; R and X are 1 there, or it would be LES or LDS.
            state.b = 0
            instruction.vvvv &= 7
        }
        if payload & 4 != 0 { state.prefixes.insert(.l) }
        switch payload & 3 {
        case 1: state.prefixes.insert(.operandSize)
        case 2: state.prefixes.insert(.rep)
        case 3: state.prefixes.insert(.repne)
        default: break
        }
        instruction.opcode = reader.byte()
    }
}
