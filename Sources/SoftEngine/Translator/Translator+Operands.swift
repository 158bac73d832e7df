import CDavit

// Instructions with ModRM that become the same instruction with other registers: integer ones here, vectors and x87 below.
extension Translator {
    private typealias R = HostRegister

    /// A guest register operand: where the emitted instruction finds it.
    private struct Place {
        var guest: UInt8 = 0
        /// Host register in the emitted encoding.
        var register: UInt8 = 0
        /// It is AH CH DH or BH: rotated into a scratch register.
        var isHigh = false
        /// It lives in `davit_cpu.gpr`, or is rotated: a scratch register stands for it.
        var isTemporary = false
    }

    private func place(_ guest: UInt8, isByte: Bool, rex: Bool) -> Place {
        if isByte && !rex && guest & 12 == 4 { return Place(guest: guest & 3, isHigh: true, isTemporary: true) }
        let host = GuestRegisters.host(guest)
        return Place(guest: guest & 15, register: host, isTemporary: host == R.none)
    }

    private mutating func fetch(_ place: Place) {
        guard place.isTemporary else { return }
        if place.isHigh {
            code.rorx(place.register, GuestRegisters.host(place.guest), 8)
        } else {
            code.load(place.register, GuestRegisters.slot(place.guest))
        }
    }

    private mutating func putBack(_ place: Place) {
        guard place.isTemporary else { return }
        if place.isHigh {
            code.rorx(GuestRegisters.host(place.guest), place.register, 56)
        } else {
            code.store(place.register, GuestRegisters.slot(place.guest))
        }
    }

    /// Integer instructions. `access` tells what is written; false if it needs more scratch registers than there are.
    mutating func regular(_ instruction: Instruction, _ access: OperandAccess) -> Bool {
        let size = instruction.operandSize
        let rmSize = instruction.rmSize
        let rex = instruction.prefixes.contains(.rex) || instruction.prefixes.contains(.vex)
        guard let prefix = instruction.hostPrefix else { return false }
        var hasReg = false
        var usesVVVV = false
        switch instruction.form {
        case .eg, .ge, .gei, .egi, .egCL: hasReg = true
        case .gbe, .geb:
            hasReg = true
            usesVVVV = true
        case .be: usesVVVV = true
        case .e, .ei, .e1, .eCL, .m: break
        case .ai: return accumulatorImmediate(instruction)
        case .z: return registerInOpcode(instruction)
        default: return false
        }
        let usesRCX = access.contains(.usesCL) || access.contains(.readsRCX)

        // Which operands need a scratch register, and which are left to give.
        var reg =
            hasReg ? place(instruction.reg, isByte: size == 1 && instruction.operation != .crc32, rex: rex) : Place()
        var vvvv = usesVVVV ? place(instruction.vvvv, isByte: false, rex: true) : Place()
        var rm = instruction.isMemory ? Place() : place(instruction.rm, isByte: rmSize == 1, rex: rex)
        let isSame = hasReg && !instruction.isMemory && reg.guest == rm.guest
        if isSame && (reg.isHigh || rm.isHigh) { return false }
        // CMPXCHG writes AL beside its operand: AH rotated back would undo that.
        if instruction.operation == .cmpxchg && rm.isHigh && rm.guest == 0 { return false }
        if usesVVVV && vvvv.isTemporary
            && (vvvv.guest == reg.guest && hasReg || !instruction.isMemory && vvvv.guest == rm.guest)
        {
            return false
        }
        var needsFold = usesRCX && instruction.isMemory
        var scratch: [UInt8] = []
        if !usesRCX { scratch.append(R.RCX) }
        if !instruction.isMemory { scratch.append(R.R11) }
        if rm.isTemporary {
            guard let register = scratch.popLast() else { return false }
            rm.register = register
        }
        if reg.isTemporary {
            if isSame {
                reg.register = rm.register
            } else {
                guard let register = scratch.popLast() else { return false }
                reg.register = register
                needsFold = needsFold || instruction.isMemory
            }
        }
        if vvvv.isTemporary {
            guard let register = scratch.popLast() else { return false }
            vvvv.register = register
            needsFold = needsFold || instruction.isMemory
        }

        var operand: HostOperand
        if instruction.isMemory {
            operand = memoryOperand(instruction, size: Int(rmSize), write: access.contains(.writesRM))
            if needsFold { operand = fold(operand) }
        } else {
            operand = .register(rm.register)
        }
        if usesRCX { code.move(R.RCX, R.R15) }
        fetch(rm)
        if !isSame || !reg.isTemporary { fetch(reg) }
        fetch(vvvv)
        let form = CodeEmitter.Form(
            // 82 is 80 in 32-bit code.
            prefix: prefix, map: instruction.map,
            opcode: instruction.map == 0 && instruction.opcode == 0x82 ? 0x80 : instruction.opcode,
            w: instruction.prefixes.contains(.vex)
                // W is ignored outside 64-bit mode.
                ? instruction.prefixes.contains(.w) && !mode.is32Bit
                : size == 8 && instruction.operation != .cmpxchg8b || instruction.operation == .cmpxchg16b,
            rex: size == 1 || rmSize == 1,
            lock: instruction.prefixes.contains(.lock) && isShared, vex: instruction.prefixes.contains(.vex),
            vvvv: usesVVVV ? vvvv.register : 0)
        code.emit(form, reg: hasReg ? reg.register : instruction.modrm >> 3 & 7, operand)
        emitImmediate(instruction)
        if access.contains(.writesRM) { putBack(rm) }
        if access.contains(.writesReg) && !(isSame && access.contains(.writesRM)) { putBack(reg) }
        if access.contains(.writesVVVV) { putBack(vvvv) }
        return true
    }

    /// Opcodes 04, 05, A8 and their like: AL, AX, EAX or RAX with an immediate.
    private mutating func accumulatorImmediate(_ instruction: Instruction) -> Bool {
        if instruction.operandSize == 2 { code.byte(0x66) }
        if instruction.operandSize == 8 { code.byte(0x48) }
        code.byte(instruction.opcode)
        emitImmediate(instruction)
        return true
    }

    /// INC and DEC 40-4F of 32-bit code: bytes that are REX in the host's.
    private mutating func registerInOpcode(_ instruction: Instruction) -> Bool {
        guard instruction.operation == .inc || instruction.operation == .dec else { return false }
        let form = CodeEmitter.Form(prefix: instruction.operandSize == 2 ? 0x66 : 0, opcode: 0xFF)
        code.emit(form, reg: instruction.operation == .inc ? 0 : 1, .register(GuestRegisters.host(instruction.reg)))
        return true
    }

    mutating func emitImmediate(_ instruction: Instruction) {
        let value = instruction.immediate
        switch decoder.entry(of: instruction).pointee.immediate {
        case .signed8, .unsigned8: code.byte(UInt8(truncatingIfNeeded: value))
        case .z, .v, .unsigned16:
            if instruction.operandSize == 2 {
                code.byte(UInt8(truncatingIfNeeded: value))
                code.byte(UInt8(truncatingIfNeeded: value >> 8))
            } else {
                code.int32(Int32(truncatingIfNeeded: value))
            }
        case .two8:
            code.byte(UInt8(truncatingIfNeeded: value))
            code.byte(UInt8(truncatingIfNeeded: instruction.immediate2))
        case .none, .relative8, .relativeZ, .farPointer, .offset, .enter: break
        }
    }

    // MARK: - MMX, SSE, AVX and x87: as they are, memory operand rebased

    mutating func hostInstruction(_ instruction: Instruction) -> Bool {
        guard mode.isPlain else { return false }
        let shape = decoder.shape(of: instruction)
        let isX87 =
            instruction.operation == .x87 || instruction.operation == .emms || shape.reg == .mmx || shape.rm == .mmx
        if shape.access.contains(.storesThroughRDI) || instruction.isMemory && instruction.operandSize == 0 {
            return false
        }
        // FSTENV, FSAVE and their counterparts show the x87 instruction pointer, which only the interpreter keeps.
        if isX87 && instruction.operandSize > 10 { return false }
        guard let prefix = instruction.hostPrefix else { return false }
        if isX87 && !instruction.isMemory { loadX87() }
        if instruction.operation == .vzero || instruction.operation == .emms {
            if instruction.operation == .vzero {
                code.byte(0xC5)
                code.byte(instruction.prefixes.contains(.l) ? 0xFC : 0xF8)
            } else {
                code.byte(0x0F)
            }
            code.byte(0x77)
            return true
        }

        var reg =
            shape.reg == .general ? place(instruction.reg, isByte: false, rex: true) : Place(register: instruction.reg)
        if shape.reg == .none { reg.register = instruction.modrm >> 3 & 7 }
        if shape.reg == .mmx { reg.register &= 7 }
        var rm =
            shape.rm == .general ? place(instruction.rm, isByte: false, rex: true) : Place(register: instruction.rm)
        if shape.rm == .mmx || instruction.operation == .x87 { rm.register &= 7 }

        var operand: HostOperand
        if instruction.isMemory {
            operand = memoryOperand(
                instruction, size: Int(instruction.operandSize), write: shape.access.contains(.writesRM))
            if reg.isTemporary {
                operand = fold(operand)
                reg.register = R.RCX
            } else if isX87 {
                // Behind the check: a TLB miss puts x87 state into the image.
                operand = fold(operand)
                loadX87()
            }
        } else {
            if rm.isTemporary { rm.register = R.R11 }
            if reg.isTemporary { reg.register = R.RCX }
            operand = .register(rm.register)
            fetch(rm)
        }
        fetch(reg)
        let form = CodeEmitter.Form(
            prefix: prefix, map: instruction.map, opcode: instruction.opcode, w: instruction.prefixes.contains(.w),
            vex: instruction.prefixes.contains(.vex), l: instruction.prefixes.contains(.l), vvvv: instruction.vvvv)
        code.emit(form, reg: reg.register, operand)
        var immediate = instruction
        // Outside 64-bit mode the registers that an immediate names are eight.
        if mode.is32Bit && shape.access.contains(.readsImmediateRegister) { immediate.immediate &= 0x7F }
        emitImmediate(immediate)
        if !instruction.isMemory { putBack(rm) }
        putBack(reg)
        if shape.access.contains(.writesRCX) { code.move(R.R15, R.RCX) }
        return true
    }

    /// Sees to it that the host's registers hold x87 state: `x87_in_image` is zero when they do. RCX only.
    private mutating func loadX87() {
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_X87_IN_IMAGE))
        code.jrcxz(over: 5)
        code.call(stubs.loadX87)
    }
}

extension Instruction {
    /// Size of ModRM.rm's operand in bytes.
    var rmSize: UInt8 {
        switch operation {
        case .movzx, .movsx: opcode & 1 == 0 ? 1 : 2
        case .movsxd: 4
        case .crc32: opcode & 1 == 0 ? 1 : operandSize
        case .cmpxchg8b: 8
        case .cmpxchg16b: 16
        default: operandSize
        }
    }

    /// The one prefix byte that the emitted instruction needs, 0 for none; nil where it would need two.
    var hostPrefix: UInt8? {
        let mandatory: UInt8 =
            switch operation {
            case .popcnt, .lzcnt, .tzcnt, .adox: 0xF3
            case .crc32: 0xF2
            case .adcx: 0x66
            case .vector, .x87, .vzero, .emms, .andn, .bextr, .blsr, .blsmsk, .blsi, .bzhi, .mulx, .pdep, .pext, .rorx,
                .sarx, .shlx, .shrx:
                operation == .x87
                    ? 0
                    : prefixes.contains(.repne)
                        ? 0xF2
                        : prefixes.contains(.rep)
                            ? 0xF3
                            : prefixes.contains(.operandSize) ? 0x66 : 0
            default: 0
            }
        switch operation {
        case .popcnt, .lzcnt, .tzcnt, .crc32: return operandSize == 2 ? nil : mandatory
        case .vector, .x87, .vzero, .emms, .adcx, .adox: return mandatory
        default: return mandatory != 0 ? mandatory : operandSize == 2 ? 0x66 : 0
        }
    }
}
