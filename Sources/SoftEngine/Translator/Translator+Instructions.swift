import CDavit

/// What an integer instruction does with its operands.
struct OperandAccess: OptionSet {
    let rawValue: UInt8
    static let writesRM = OperandAccess(rawValue: 1)
    static let writesReg = OperandAccess(rawValue: 2)
    /// The count is in CL.
    static let usesCL = OperandAccess(rawValue: 4)
    /// ModRM.reg is an opcode extension.
    static let extended = OperandAccess(rawValue: 8)
    /// VEX.vvvv is a general register that is read, or written (MULX).
    static let readsVVVV = OperandAccess(rawValue: 16)
    static let writesVVVV = OperandAccess(rawValue: 32)
    /// Reads or writes RCX by itself: CMPXCHG8B, CMPXCHG16B.
    static let readsRCX = OperandAccess(rawValue: 64)
}

extension Translator {
    private typealias R = HostRegister

    /// Emits one instruction, or returns false if it is for the interpreter. Nothing is emitted then.
    mutating func emit(_ instruction: Instruction) -> Bool {
        if mode.is32Bit {
            // 16-bit addresses, and segments that may not be written or have a limit.
            guard instruction.addressSize == 4 else { return false }
            switch instruction.segment {
            case 1: return false
            case 4: guard mode.hasFS else { return false }
            case 5: guard mode.hasGS else { return false }
            default: break
            }
        }
        switch instruction.operation {
        case .jcc: return conditionalJump(instruction)
        case .jmp: return directJump(instruction)
        case .call: return directCall(instruction)
        case .ret, .jmpIndirect, .callIndirect: return indirectBranch(instruction)
        case .push: return push(instruction)
        case .pop: return pop(instruction)
        case .leave: return leave(instruction)
        case .lea: return loadEffectiveAddress(instruction)
        case .nop, .pause, .prefetch: return true
        case .cbw, .cwd, .clc, .stc, .cmc, .lahf, .sahf: return plain(instruction)
        case .fence:
            return !instruction.isMemory && raw(instruction)
        case .mov: return move(instruction)
        case .add, .or, .adc, .sbb, .and, .sub, .xor:
            return regular(instruction, instruction.form == .ge ? .writesReg : .writesRM)
        case .cmp, .test: return regular(instruction, [])
        case .inc, .dec, .neg, .not, .setcc, .rol, .ror, .rcl, .rcr, .shl, .shr, .sar:
            return regular(instruction, instruction.form == .eCL ? [.writesRM, .usesCL] : .writesRM)
        case .shld, .shrd: return regular(instruction, instruction.form == .egCL ? [.writesRM, .usesCL] : .writesRM)
        case .mul, .imul, .div, .idiv: return regular(instruction, [])
        case .imul2, .movzx, .movsx, .movsxd, .cmov, .bsf, .bsr, .popcnt, .lzcnt, .tzcnt, .crc32, .adcx, .adox, .rorx:
            return regular(instruction, .writesReg)
        case .bt, .bts, .btr, .btc:
            // With a register as bit number the memory operand lies anywhere.
            if instruction.isMemory && instruction.form == .eg { return false }
            return regular(instruction, instruction.operation == .bt ? [] : .writesRM)
        case .movbe: return regular(instruction, instruction.opcode == 0xF0 ? .writesReg : .writesRM)
        case .movnti: return regular(instruction, .writesRM)
        case .xchg:
            if instruction.form == .az { return exchangeAccumulator(instruction) }
            return regular(instruction, [.writesRM, .writesReg])
        case .xadd: return regular(instruction, [.writesRM, .writesReg])
        case .cmpxchg: return regular(instruction, .writesRM)
        case .cmpxchg8b, .cmpxchg16b: return regular(instruction, [.writesRM, .readsRCX])
        case .bswap: return swapBytes(instruction)
        case .andn, .bextr, .bzhi, .sarx, .shlx, .shrx, .pdep, .pext:
            return regular(instruction, [.writesReg, .readsVVVV])
        case .mulx: return regular(instruction, [.writesReg, .writesVVVV])
        case .blsr, .blsmsk, .blsi: return regular(instruction, .writesVVVV)
        case .vector, .x87, .vzero, .emms: return hostInstruction(instruction)
        case .cli: return clearInterruptFlag()
        case .sti: return setInterruptFlag()
        case .pushf: return pushFlags(instruction)
        case .swapgs: return swapGS()
        case .stac: return setAccessFlag(true)
        case .clac: return setAccessFlag(false)
        case .rdtsc: return readTimeStamp(withID: false)
        case .rdtscp: return readTimeStamp(withID: true)
        case .syscall: return systemCall()
        case .sysret: return systemReturn(instruction)
        case .movs, .stos: return repeatedString(instruction)
        case .movFromSegment: return moveFromSegment(instruction)
        default: return false
        }
    }

    // MARK: - Instructions without ModRM

    /// Same bytes, fixed registers.
    private mutating func raw(_ instruction: Instruction) -> Bool {
        code.byte(0x0F)
        code.byte(instruction.opcode)
        code.byte(instruction.modrm)
        return true
    }

    private mutating func plain(_ instruction: Instruction) -> Bool {
        if instruction.operandSize == 2 && (instruction.operation == .cbw || instruction.operation == .cwd) {
            code.byte(0x66)
        }
        if instruction.operandSize == 8 && (instruction.operation == .cbw || instruction.operation == .cwd) {
            code.byte(0x48)
        }
        code.byte(instruction.opcode)
        return true
    }

    private mutating func swapBytes(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize != 2 else { return false }
        let host = GuestRegisters.host(instruction.reg)
        let register = host == R.none ? R.R11 : host
        if host == R.none { code.load(register, GuestRegisters.slot(instruction.reg)) }
        let isWide = instruction.operandSize == 8
        if isWide || register & 8 != 0 { code.byte(0x40 | (isWide ? 8 : 0) | (register & 8 != 0 ? 1 : 0)) }
        code.byte(0x0F)
        code.byte(0xC8 | register & 7)
        if host == R.none { code.store(register, GuestRegisters.slot(instruction.reg)) }
        return true
    }

    private mutating func exchangeAccumulator(_ instruction: Instruction) -> Bool {
        let host = GuestRegisters.host(instruction.reg)
        let register = host == R.none ? R.R11 : host
        if host == R.none { code.load(register, GuestRegisters.slot(instruction.reg)) }
        let form = CodeEmitter.Form(
            prefix: instruction.operandSize == 2 ? 0x66 : 0, opcode: 0x87, w: instruction.operandSize == 8)
        code.emit(form, reg: R.RAX, .register(register))
        if host == R.none { code.store(register, GuestRegisters.slot(instruction.reg)) }
        return true
    }

    private mutating func loadEffectiveAddress(_ instruction: Instruction) -> Bool {
        guard instruction.isMemory else { return false }
        let host = GuestRegisters.host(instruction.reg)
        if instruction.operandSize >= 4 && host != R.none {
            // Straight into its register, but an address of 32 bits under a 64-bit destination or the reverse both zero-extend.
            if instruction.operandSize == 8 && instruction.addressSize == 8 {
                effectiveAddress(instruction, into: host, mayAlias: false)
                return true
            }
        }
        effectiveAddress(instruction, into: R.R11, mayAlias: false)
        switch instruction.operandSize {
        case 8:
            write(guest: instruction.reg, from: R.R11)
        case 4:
            code.load32(R.R11, .register(R.R11))
            write(guest: instruction.reg, from: R.R11)
        default:
            let target = host == R.none ? GuestRegisters.slot(instruction.reg) : .register(host)
            code.emit(.init(prefix: 0x66, opcode: 0x89), reg: R.R11, target)
        }
        return true
    }

    /// MOV of 64 bits into a guest register.
    private mutating func write(guest: UInt8, from register: UInt8) {
        let host = GuestRegisters.host(guest)
        if host == R.none { code.store(register, GuestRegisters.slot(guest)) } else { code.move(host, register) }
    }

    // MARK: - MOV

    private mutating func move(_ instruction: Instruction) -> Bool {
        switch instruction.form {
        case .eg: return regular(instruction, .writesRM)
        case .ge: return regular(instruction, .writesReg)
        case .ei: return regular(instruction, .writesRM)
        case .zi:
            switch instruction.operandSize {
            case 8, 4:
                let value =
                    UInt64(bitPattern: instruction.immediate) & (instruction.operandSize == 8 ? ~0 : 0xFFFF_FFFF)
                let host = GuestRegisters.host(instruction.reg)
                code.loadImmediate(host == R.none ? R.R11 : host, value)
                if host == R.none { code.store(R.R11, GuestRegisters.slot(instruction.reg)) }
                return true
            default: return moveNarrowImmediate(instruction)
            }
        case .accumulatorFromOffset, .offsetFromAccumulator:
            let isLoad = instruction.form == .accumulatorFromOffset
            let size = instruction.operandSize
            let operand = memoryOperand(instruction, size: Int(size), write: !isLoad)
            let opcode: UInt8 = (isLoad ? 0x8A : 0x88) | (size == 1 ? 0 : 1)
            code.emit(.init(prefix: size == 2 ? 0x66 : 0, opcode: opcode, w: size == 8), reg: R.RAX, operand)
            return true
        default: return false
        }
    }

    /// MOV r8, imm8 and MOV r16, imm16 (B0-BF).
    private mutating func moveNarrowImmediate(_ instruction: Instruction) -> Bool {
        let isByte = instruction.operandSize == 1
        if isByte && !instruction.prefixes.contains(.rex) && instruction.reg & 12 == 4 {
            let host = GuestRegisters.host(instruction.reg & 3)
            code.rorx(R.R11, host, 8)
            code.emit(.init(opcode: 0xC6), reg: 0, .register(R.R11))
            code.byte(UInt8(truncatingIfNeeded: instruction.immediate))
            code.rorx(host, R.R11, 56)
            return true
        }
        let host = GuestRegisters.host(instruction.reg)
        let target = host == R.none ? GuestRegisters.slot(instruction.reg) : .register(host)
        code.emit(.init(prefix: isByte ? 0 : 0x66, opcode: isByte ? 0xC6 : 0xC7, rex: true), reg: 0, target)
        code.byte(UInt8(truncatingIfNeeded: instruction.immediate))
        if !isByte { code.byte(UInt8(truncatingIfNeeded: instruction.immediate >> 8)) }
        return true
    }

    // MARK: - Stack

    private mutating func push(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize == mode.width else { return false }
        switch instruction.form {
        case .z:
            let slot = stackOperand(-mode.width, write: true)
            let host = GuestRegisters.host(instruction.reg)
            if host == R.none {
                let folded = fold(slot)
                code.load(R.RCX, GuestRegisters.slot(instruction.reg))
                storeWord(R.RCX, folded)
            } else {
                storeWord(host, slot)
            }
        case .i:
            let slot = stackOperand(-mode.width, write: true)
            code.emit(.init(opcode: 0xC7, w: !mode.is32Bit), reg: 0, slot)
            code.int32(Int32(truncatingIfNeeded: instruction.immediate))
        case .e:
            guard instruction.isMemory else { return false }
            loadWord(R.R11, memoryOperand(instruction, size: Int(mode.width), write: false))
            code.store(R.R11, CPUField.scratch(1))
            let folded = fold(stackOperand(-mode.width, write: true))
            code.load(R.RCX, CPUField.scratch(1))
            storeWord(R.RCX, folded)
        default: return false
        }
        moveStack(by: -mode.width)
        return true
    }

    /// MOV of what PUSH and POP move: 8 bytes, or 4 with zero extension.
    mutating func loadWord(_ register: UInt8, _ from: HostOperand) {
        if mode.is32Bit { code.load32(register, from) } else { code.load(register, from) }
    }

    mutating func storeWord(_ register: UInt8, _ to: HostOperand) {
        if mode.is32Bit { code.store32(register, to) } else { code.store(register, to) }
    }

    /// RSP += `distance`, without flags.
    mutating func moveStack(by distance: Int32) {
        if mode.is32Bit {
            code.lea32(R.R13, .memory(R.R13, distance))
        } else {
            code.lea(R.R13, .memory(R.R13, distance))
        }
    }

    private mutating func pop(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize == mode.width, instruction.form == .z else { return false }
        loadWord(R.R11, stackOperand(0, write: false))
        moveStack(by: mode.width)
        write(guest: instruction.reg, from: R.R11)
        return true
    }

    private mutating func leave(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize == mode.width else { return false }
        if mode.is32Bit {
            code.load32(R.R11, .register(R.RBP))
            code.load32(R.R11, check(R.R11, size: 4, write: false))
            code.lea32(R.R13, .memory(R.RBP, 4))
        } else {
            code.load(R.R11, nearOperand(R.RBP, 0, size: 8, write: false))
            code.lea(R.R13, .memory(R.RBP, 8))
        }
        code.move(R.RBP, R.R11)
        return true
    }
}
