// From the opcode on: the table's row, ModRM, SIB, displacement and immediate.
extension Decoder {
    @inline(__always)
    func readOperands(_ reader: inout CodeReader, _ state: inout DecodeState, _ instruction: inout Instruction) {
        let isVEX = state.prefixes.contains(.vex)
        var head = Int(heads[OpcodeTable.chainIndex(vex: isVEX, map: instruction.map, opcode: instruction.opcode)])
        let common = entries[head].rules
        let isX87 = !isVEX && OpcodeTable.isX87(map: instruction.map, opcode: instruction.opcode)
        instruction.addressSize = addressSize(state)

        if isX87 || common.contains(.modrm) {
            instruction.modrm = reader.byte()
            instruction.isMemory = instruction.modrm < 0xC0 && !common.contains(.registerOnly)
            if isX87 {
                head = Int(
                    heads[
                        OpcodeTable.x87ChainIndex(
                            opcode: instruction.opcode, modrm: instruction.modrm, isMemory: instruction.isMemory)])
            }
            instruction.reg = instruction.modrm >> 3 & 7 | state.r
            instruction.rm = instruction.modrm & 7 | state.b
        } else {
            instruction.reg = instruction.opcode & 7 | state.b
        }

        let index = findEntry(head, key: key(state, instruction))
        let entry = entries + index
        let rules = entry.pointee.rules
        instruction.segment = state.segment == DecodeState.noSegment ? 3 : state.segment
        if instruction.isMemory { readMemoryOperand(&reader, state, &instruction, vsib: rules.contains(.vsib)) }
        if index == 0 {
            instruction.prefixes = state.prefixes
            return
        }

        instruction.operandSize = operandSize(entry.pointee.size, state)
        readImmediate(entry.pointee.immediate, &reader, &instruction)
        instruction.entry = UInt16(truncatingIfNeeded: index)
        instruction.operation = entry.pointee.operation
        instruction.form = entry.pointee.form
        if entry.pointee.form == .vector {
            finishVector(entry.pointee, &state, &instruction)
        } else {
            finishInteger(entry.pointee, &state, &instruction)
        }
        instruction.prefixes = state.prefixes
        if state.isUndefined { instruction.operation = .invalid }
    }

    @inline(__always)
    private func findEntry(_ head: Int, key: UInt32) -> Int {
        var index = head
        while true {
            let entry = entries + index
            // Row 0 matches every key.
            if key & entry.pointee.pattern.mask == entry.pointee.pattern.match,
                features.contains(entry.pointee.feature)
            {
                return index
            }
            index = Int(entry.pointee.next)
        }
    }

    @inline(__always)
    private func key(_ state: DecodeState, _ instruction: borrowing Instruction) -> UInt32 {
        var key = UInt32(instruction.modrm)
        if instruction.isMemory { key |= OpcodePattern.Key.memory }
        let prefixes = state.prefixes
        if prefixes.contains(.rep) {
            key |= OpcodePattern.Key.pF3
        } else if prefixes.contains(.repne) {
            key |= OpcodePattern.Key.pF2
        } else if prefixes.contains(.operandSize) {
            key |= OpcodePattern.Key.p66
        }
        if prefixes.contains(.w) { key |= OpcodePattern.Key.w }
        if prefixes.contains(.l) { key |= OpcodePattern.Key.l }
        if state.long { key |= OpcodePattern.Key.long }
        if state.namesVVVV { key |= OpcodePattern.Key.vvvv }
        if state.b != 0 { key |= OpcodePattern.Key.rexB }
        return key
    }

    @inline(__always)
    private func addressSize(_ state: DecodeState) -> UInt8 {
        let override = state.prefixes.contains(.addressSize)
        if state.long { return override ? 4 : 8 }
        return state.wide != override ? 4 : 2
    }

    /// ModRM.rm as memory (SDM vol. 2, tables 2-1 to 2-3).
    @inline(__always)
    private func readMemoryOperand(
        _ reader: inout CodeReader, _ state: DecodeState, _ instruction: inout Instruction, vsib: Bool
    ) {
        let mod = instruction.modrm >> 6
        var rm = instruction.modrm & 7
        if instruction.addressSize == 2 {
            readMemoryOperand16(&reader, state, &instruction)
            return
        }
        var displacementSize = mod == 2 ? 4 : Int(mod)
        if rm == 4 {
            let sib = reader.byte()
            let index = sib >> 3 & 7 | state.x
            if index != 4 || vsib {
                instruction.index = index
                instruction.scale = sib >> 6
            }
            rm = sib & 7
            if rm == 5 && mod == 0 {
                displacementSize = 4
            } else {
                instruction.base = rm | state.b
            }
        } else if rm == 5 && mod == 0 {
            displacementSize = 4
            if state.long { instruction.base = Instruction.ripRegister }
        } else {
            instruction.base = rm | state.b
        }
        if displacementSize == 1 {
            instruction.displacement = Int64(Int8(bitPattern: reader.byte()))
        } else if displacementSize == 4 {
            instruction.displacement = Int64(reader.little(Int32.self))
        }
        // RSP and RBP as base (not R12 and R13) lie in the stack segment.
        if state.segment == DecodeState.noSegment, instruction.base & ~1 == 4 { instruction.segment = 2 }
    }

    /// With 16-bit addresses: BX or BP plus SI or DI.
    private func readMemoryOperand16(
        _ reader: inout CodeReader, _ state: DecodeState, _ instruction: inout Instruction
    ) {
        let mod = instruction.modrm >> 6
        let rm = instruction.modrm & 7
        if rm == 6 && mod == 0 {
            instruction.displacement = Int64(reader.little(Int16.self))
            return
        }
        let bx: UInt8 = 3
        let bp: UInt8 = 5
        let si: UInt8 = 6
        let di: UInt8 = 7
        switch rm {
        case 0: (instruction.base, instruction.index) = (bx, si)
        case 1: (instruction.base, instruction.index) = (bx, di)
        case 2: (instruction.base, instruction.index) = (bp, si)
        case 3: (instruction.base, instruction.index) = (bp, di)
        case 4: instruction.base = si
        case 5: instruction.base = di
        case 6: instruction.base = bp
        default: instruction.base = bx
        }
        if mod == 1 {
            instruction.displacement = Int64(Int8(bitPattern: reader.byte()))
        } else if mod == 2 {
            instruction.displacement = Int64(reader.little(Int16.self))
        }
        if state.segment == DecodeState.noSegment, instruction.base == bp { instruction.segment = 2 }
    }

    @inline(__always)
    private func readImmediate(
        _ kind: ImmediateKind, _ reader: inout CodeReader, _ instruction: inout Instruction
    ) {
        switch kind {
        case .none: break
        case .signed8, .relative8: instruction.immediate = Int64(Int8(bitPattern: reader.byte()))
        case .unsigned8: instruction.immediate = Int64(reader.byte())
        case .unsigned16: instruction.immediate = Int64(reader.little(UInt16.self))
        case .z, .relativeZ:
            instruction.immediate =
                instruction.operandSize == 2 ? Int64(reader.little(Int16.self)) : Int64(reader.little(Int32.self))
        case .v:
            switch instruction.operandSize {
            case 8: instruction.immediate = reader.little(Int64.self)
            case 4: instruction.immediate = Int64(reader.little(UInt32.self))
            default: instruction.immediate = Int64(reader.little(UInt16.self))
            }
        case .farPointer:
            instruction.immediate =
                instruction.operandSize == 2 ? Int64(reader.little(UInt16.self)) : Int64(reader.little(UInt32.self))
            instruction.immediate2 = reader.little(UInt16.self)
        case .offset:
            switch instruction.addressSize {
            case 8: instruction.displacement = reader.little(Int64.self)
            case 4: instruction.displacement = Int64(reader.little(UInt32.self))
            default: instruction.displacement = Int64(reader.little(UInt16.self))
            }
        case .enter:
            instruction.immediate = Int64(reader.little(UInt16.self))
            instruction.immediate2 = UInt16(reader.byte())
        case .two8:
            instruction.immediate = Int64(reader.byte())
            instruction.immediate2 = UInt16(reader.byte())
        }
    }

    /// In bytes.
    @inline(__always)
    private func operandSize(_ rule: OperandSizeRule, _ state: DecodeState) -> UInt8 {
        let override = state.prefixes.contains(.operandSize)
        let isWide = state.prefixes.contains(.w) && state.long
        let narrow: UInt8 = state.wide != override ? 4 : 2
        let vector: UInt8 = state.prefixes.contains(.l) ? 32 : 16
        switch rule {
        case .none: return 0
        case .b1: return 1
        case .b2: return 2
        case .b4: return 4
        case .b8: return 8
        case .b10: return 10
        case .b16: return 16
        case .b32: return 32
        case .v: return isWide ? 8 : narrow
        case .z: return isWide ? 4 : narrow
        case .y: return isWide ? 8 : 4
        case .native: return state.long ? 8 : 4
        case .stack: return state.long ? (override && !isWide ? 2 : 8) : narrow
        case .branch: return state.long ? (override && !isWide && behaviour.contains(.amd) ? 2 : 8) : narrow
        case .far: return isWide ? (behaviour.contains(.amd) ? 4 : 8) : narrow
        case .vector: return vector
        case .half: return vector / 2
        case .quarter: return vector / 4
        case .eighth: return vector / 8
        case .duplicate: return vector == 32 ? 32 : 8
        case .environment: return isWide || narrow == 4 ? 28 : 14
        case .state: return isWide || narrow == 4 ? 108 : 94
        }
    }
}
