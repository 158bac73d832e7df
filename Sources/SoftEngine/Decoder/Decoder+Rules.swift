// What a row of the table does not say: LOCK, register numbers that do not exist, prefixes without effect.
extension Decoder {
    @inline(__always)
    func finishInteger(_ entry: OpcodeEntry, _ state: inout DecodeState, _ instruction: inout Instruction) {
        switch instruction.operation {
        case .movFromSegment, .movToSegment:
            instruction.reg &= 7
            // CS cannot be loaded, 6 and 7 do not exist.
            if instruction.reg > 5 || instruction.reg == 1 && instruction.operation == .movToSegment {
                state.isUndefined = true
            }
        case .pushSegment, .popSegment: instruction.reg = instruction.opcode >> 3 & 7
        case .movFromCR, .movToCR:
            if state.prefixes.contains(.lock), instruction.reg == 0, features.contains(.cr8Legacy) {
                instruction.reg = 8
                state.prefixes.remove(.lock)
            }
            // CR0, CR2, CR3, CR4, CR8.
            if instruction.reg > 8 || 0b1_0001_1101 >> UInt32(instruction.reg) & 1 == 0 { state.isUndefined = true }
        case .movFromDR, .movToDR:
            if instruction.reg > 7 { state.isUndefined = true }
        default: break
        }
        if state.prefixes.contains(.lock), !(entry.rules.contains(.lockable) && instruction.isMemory) {
            state.isUndefined = true
        }
    }

    @inline(__always)
    func finishVector(_ entry: OpcodeEntry, _ state: inout DecodeState, _ instruction: inout Instruction) {
        if state.prefixes.contains(.lock) { state.isUndefined = true }
        if state.prefixes.contains(.vex), !features.contains(.avx) { state.isUndefined = true }
        if !instruction.isMemory, entry.operation != .maskmov { instruction.operandSize = 0 }
        // There are only eight MMX registers: REX does not reach them.
        if entry.shape.reg == .mmx { instruction.reg &= 7 }
        if entry.shape.rm == .mmx || entry.operation == .x87 { instruction.rm &= 7 }
        if entry.operation != .x87, !state.prefixes.isDisjoint(with: [.rep, .repne]) {
            state.prefixes.remove(.operandSize)
        }
        if !state.long && entry.rules.contains(.widensGeneral) && state.prefixes.contains(.w) {
            state.prefixes.remove(.w)
            // AMD's CPUs do not take VPEXTRQ and VPINSRQ for their narrower namesakes.
            if instruction.map == 3 && entry.shape.rm == .general && behaviour.contains(.amd) {
                state.isUndefined = true
            }
        }
        if entry.rules.contains(.vsib) { checkGather(&state, instruction) }
    }

    /// VSIB needs a SIB byte; destination, index and mask must differ (SDM vol. 2, 2.3.12).
    private func checkGather(_ state: inout DecodeState, _ instruction: Instruction) {
        let hasSIB = instruction.addressSize != 2 && instruction.modrm & 7 == 4
        let isDistinct =
            instruction.reg != instruction.index && instruction.reg != instruction.vvvv
            && instruction.index != instruction.vvvv
        if !hasSIB || !isDistinct { state.isUndefined = true }
    }
}
