import CDavit

extension Translator {
    private typealias R = HostRegister

    /// Emits what decides whether a pending request makes the vCPU look up, and leaves for `target` if so. RCX only.
    private mutating func requestCheck(leavingFor target: UInt64) {
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_EXIT_REQUEST))
        leaveIfNotZero(for: target)
    }

    /// Emits what leaves for the run loop with RIP = `target` if RCX is not zero.
    mutating func leaveIfNotZero(for target: UInt64) {
        code.jrcxz(over: 5)
        code.jump(to: code.cursor)
        detours.append(Detour(kind: .lookup, place: code.cursor - 4, start: start, target: target))
    }

    /// Emits JMP rel32 to a guest address. A jump backward looks at the request word: every loop has one, or an indirect jump.
    mutating func jump(to target: UInt64) {
        if target <= rip { requestCheck(leavingFor: target) }
        code.jump(to: code.cursor)
        lead(code.cursor - 4, to: target)
    }

    /// Lets the rel32 at `place` lead to a guest address.
    private mutating func lead(_ place: UnsafeMutablePointer<UInt8>, to target: UInt64) {
        let isSamePage = target >> 12 == startRIP >> 12
        detours.append(Detour(kind: isSamePage ? .link : .crossPage, place: place, start: start, target: target))
    }

    mutating func conditionalJump(_ instruction: Instruction) -> Bool {
        guard let target = relativeTarget(instruction) else { return false }
        let condition = instruction.opcode & 15
        if target <= rip {
            code.jump(condition: condition ^ 1, to: code.cursor)
            let skip = code.cursor - 4
            jump(to: target)
            CodeEmitter.patch(skip, to: code.cursor)
        } else {
            code.jump(condition: condition, to: code.cursor)
            lead(code.cursor - 4, to: target)
        }
        return true
    }

    mutating func directJump(_ instruction: Instruction) -> Bool {
        guard let target = relativeTarget(instruction) else { return false }
        jump(to: target)
        isOver = true
        return true
    }

    mutating func directCall(_ instruction: Instruction) -> Bool {
        guard let target = relativeTarget(instruction) else { return false }
        pushReturnAddress()
        jump(to: target)
        isOver = true
        return true
    }

    /// The target of a relative branch, or nil where it is not simply an address: 16-bit operand size, or not canonical (#GP).
    private func relativeTarget(_ instruction: Instruction) -> UInt64? {
        guard instruction.operandSize == mode.width else { return nil }
        let target = (nextRIP &+ UInt64(bitPattern: instruction.immediate)) & mode.addressMask
        return Int64(bitPattern: target << 16) >> 16 == Int64(bitPattern: target) ? target : nil
    }

    private mutating func pushReturnAddress() {
        let slot = stackOperand(-mode.width, write: true)
        if mode.is32Bit {
            code.emit(.init(opcode: 0xC7), reg: 0, slot)
            code.int32(Int32(truncatingIfNeeded: nextRIP))
        } else if Int64(bitPattern: nextRIP) == Int64(Int32(truncatingIfNeeded: nextRIP)) {
            code.emit(.init(opcode: 0xC7, w: true), reg: 0, slot)
            code.int32(Int32(truncatingIfNeeded: nextRIP))
        } else {
            let folded = fold(slot)
            code.loadImmediate(R.RCX, nextRIP)
            code.store(R.RCX, folded)
        }
        moveStack(by: -mode.width)
    }

    /// JMP, CALL r/m64 and RET: the target goes to R11 and is looked for in the jump cache. What cannot be put there the interpreter
    /// carries out, so nothing is written before the target is known.
    mutating func indirectBranch(_ instruction: Instruction) -> Bool {
        guard instruction.operandSize == mode.width else { return false }
        code.load32(R.RCX, CPUField.at(DAVIT_OFFSET_EXIT_REQUEST))
        leaveIfNotZero(for: rip)
        if instruction.operation == .ret {
            loadWord(R.R11, stackOperand(0, write: false))
        } else if instruction.isMemory {
            loadWord(R.R11, memoryOperand(instruction, size: Int(mode.width), write: false))
        } else {
            let host = GuestRegisters.host(instruction.rm)
            loadWord(R.R11, host == R.none ? GuestRegisters.slot(instruction.rm) : .register(host))
        }
        probe()
        // Learning a target may have made code of a page that a window was granted for writing.
        registers.defineAll()
        switch instruction.operation {
        case .ret:
            moveStack(by: mode.width + Int32(truncatingIfNeeded: instruction.immediate & 0xFFFF))
            code.jump(jumpCache(DAVIT_OFFSET_JUMP_TARGET, mode))
        case .callIndirect:
            code.load(R.RCX, jumpCache(DAVIT_OFFSET_JUMP_TARGET, mode))
            code.store(R.RCX, CPUField.scratch(1))
            pushReturnAddress()
            code.jump(CPUField.scratch(1))
        default:
            code.jump(jumpCache(DAVIT_OFFSET_JUMP_TARGET, mode))
        }
        isOver = true
        return true
    }

    private func jumpCache(_ array: davit_offset, _ mode: TranslationMode) -> HostOperand {
        var operand = CPUField.at(array, plus: JumpCache.offset(mode))
        operand.index = R.RCX
        operand.scale = 3
        return operand
    }

    /// Looks for the guest address in R11; goes on with its index in RCX, if need be after the run loop has put it into the jump cache.
    private mutating func probe() {
        code.pext(R.RCX, R.R11, mask: CPUField.at(DAVIT_OFFSET_JUMP_INDEX_MASK))
        code.load(R.RCX, jumpCache(DAVIT_OFFSET_JUMP_KEY, mode))
        code.lea(R.RCX, .memory(R.RCX, index: R.R11, mode.number))
        code.jrcxz(over: 5)
        code.call(stubs.indirect)
        code.pext(R.RCX, R.R11, mask: CPUField.at(DAVIT_OFFSET_JUMP_INDEX_MASK))
    }

    /// A jump to the guest address in R11, in a mode that has just been entered.
    mutating func dynamicJump(_ mode: TranslationMode) {
        code.pext(R.RCX, R.R11, mask: CPUField.at(DAVIT_OFFSET_JUMP_INDEX_MASK))
        code.load(R.RCX, jumpCache(DAVIT_OFFSET_JUMP_KEY, mode))
        code.lea(R.RCX, .memory(R.RCX, index: R.R11, mode.number))
        code.jrcxz(over: 5)
        code.jump(to: stubs.find)
        code.pext(R.RCX, R.R11, mask: CPUField.at(DAVIT_OFFSET_JUMP_INDEX_MASK))
        code.jump(jumpCache(DAVIT_OFFSET_JUMP_TARGET, mode))
    }

    /// A jump to a fixed address in another page: what is mapped there may change, so it goes through the jump cache too.
    mutating func crossPageJump(to target: UInt64, mode: TranslationMode) {
        let index = JumpCache.index(target) * 8 + JumpCache.offset(mode)
        code.loadImmediate(R.R11, target)
        code.load(R.RCX, CPUField.at(DAVIT_OFFSET_JUMP_KEY, plus: index))
        code.lea(R.RCX, .memory(R.RCX, index: R.R11, mode.number))
        code.jrcxz(over: 5)
        code.jump(to: stubs.find)
        code.jump(CPUField.at(DAVIT_OFFSET_JUMP_TARGET, plus: index))
    }
}
