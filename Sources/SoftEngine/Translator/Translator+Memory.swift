import CDavit

extension Translator {
    private typealias R = HostRegister

    /// Emits the address and the TLB check of ModRM.rm's memory operand. What comes back names the operand in host memory:
    /// its index register is RCX, its base R11 or the host register of a guest register, which must both stay until it is used.
    mutating func memoryOperand(_ instruction: Instruction, size: Int, write: Bool) -> HostOperand {
        if instruction.base < 16, GuestRegisters.host(instruction.base) != R.none,
            instruction.index == Instruction.noRegister, instruction.segment < 4, instruction.addressSize == 8,
            let displacement = Int32(exactly: instruction.displacement)
        {
            return nearOperand(instruction.base, displacement, size: size, write: write)
        }
        return check(linearAddress(instruction), size: size, write: write)
    }

    /// Emits the linear address of the memory operand; returns the register that holds it: R11, or that of a guest register.
    mutating func linearAddress(_ instruction: Instruction) -> UInt8 {
        let hasSegmentBase = instruction.segment >= 4
        effectiveAddress(instruction, into: R.R11, mayAlias: !hasSegmentBase)
        if !hasSegmentBase { return addressRegister }
        code.load(R.RCX, CPUField.segmentBase(instruction.segment))
        if mode.is32Bit {
            code.lea32(R.R11, .memory(R.R11, index: R.RCX))
        } else {
            code.lea(R.R11, .memory(R.R11, index: R.RCX))
        }
        return R.R11
    }

    /// Emits LEA's work: the offset, wrapped to the address size. With `mayAlias` a plain base register is left where it is and
    /// `addressRegister` names it.
    mutating func effectiveAddress(_ instruction: Instruction, into target: UInt8, mayAlias: Bool) {
        let isWide = instruction.addressSize == 8
        addressRegister = target
        if instruction.base == Instruction.ripRegister {
            let address = nextRIP &+ UInt64(bitPattern: instruction.displacement)
            code.loadImmediate(target, isWide ? address : address & 0xFFFF_FFFF)
            return
        }
        let displacement = Int32(truncatingIfNeeded: instruction.displacement)
        if Int64(displacement) != instruction.displacement || instruction.base > 15 && instruction.index > 15 {
            // An absolute address: moffs, or ModRM without registers.
            let address = UInt64(bitPattern: instruction.displacement)
            code.loadImmediate(target, isWide ? address : address & 0xFFFF_FFFF)
            return
        }
        var operand = HostOperand(displacement: displacement)
        if instruction.base < 16 {
            operand.base = GuestRegisters.host(instruction.base)
            if operand.base == R.none {
                code.load(R.R11, GuestRegisters.slot(instruction.base))
                operand.base = R.R11
            }
        }
        if instruction.index < 16 {
            operand.index = GuestRegisters.host(instruction.index)
            operand.scale = instruction.scale
            if operand.index == R.none {
                let register = operand.base == R.R11 ? R.RCX : R.R11
                code.load(register, GuestRegisters.slot(instruction.index))
                operand.index = register
            }
        }
        if !isWide {
            code.lea32(target, operand)
        } else if mayAlias && displacement == 0 && operand.index == R.none {
            addressRegister = operand.base
        } else {
            code.lea(target, operand)
        }
    }

    /// Emits the TLB check of `size` bytes at the linear address in `register`. It writes RCX only.
    mutating func check(_ register: UInt8, size: Int, write: Bool, isWindow: Bool = false) -> HostOperand {
        let start = code.cursor
        let tlb = Int(mode.tlb) * MemoryLayout<davit_tlb>.stride
        let entries = Int(DAVIT_TLB_ENTRIES) * 8
        func array(_ number: Int) -> HostOperand {
            var operand = CPUField.at(DAVIT_OFFSET_TLB, plus: tlb + number * entries)
            operand.index = R.RCX
            operand.scale = 3
            return operand
        }
        code.pext(R.RCX, register, mask: CPUField.at(DAVIT_OFFSET_TLB_INDEX_MASK))
        code.load(R.RCX, array(write ? 1 : 0))
        code.lea(R.RCX, .memory(R.RCX, index: register, Int32(truncatingIfNeeded: size - 1)))
        code.pext(R.RCX, R.RCX, mask: CPUField.at(DAVIT_OFFSET_PAGE_MASK))
        code.jrcxz(over: 5)
        code.jump(to: code.cursor)
        detours.append(
            Detour(
                kind: isWindow ? (write ? .windowWriteMiss : .windowReadMiss) : (write ? .writeMiss : .readMiss),
                place: code.cursor - 4, start: start, target: rip, register: register,
                size: Int32(truncatingIfNeeded: size)))
        code.pext(R.RCX, register, mask: CPUField.at(DAVIT_OFFSET_TLB_INDEX_MASK))
        code.load(R.RCX, array(2))
        return .memory(register, index: R.RCX)
    }

    /// Folds a checked operand into one register, which frees the other scratch register: after it R11 alone is taken.
    mutating func fold(_ operand: HostOperand) -> HostOperand {
        code.lea(R.R11, operand)
        return .memory(R.R11)
    }

    mutating func emitDetours() {
        // Detours of detours do not occur but for links, which come last.
        var i = 0
        while i < detours.count {
            let detour = detours[i]
            i += 1
            if detour.kind == .link, let inside = boundary(at: detour.target) {
                CodeEmitter.patch(detour.place, to: inside)
                continue
            }
            CodeEmitter.patch(detour.place, to: code.cursor)
            switch detour.kind {
            case .readMiss, .writeMiss:
                code.move(R.R11, detour.register)
                code.loadImmediate(R.RCX, UInt64(detour.size))
                code.call(detour.kind == .readMiss ? stubs.readMiss : stubs.writeMiss)
                code.jump(to: detour.start)
            case .windowReadMiss, .windowWriteMiss: emitWindowMiss(detour)
            case .lookup:
                code.loadImmediate(R.R11, detour.target)
                code.jump(to: stubs.lookup)
            case .crossPage:
                crossPageJump(to: detour.target, mode: mode)
            case .link:
                emitLink(place: detour.place, target: detour.target, stub: stubs.link)
            }
        }
    }

    /// A window's first byte is in R11. If it reaches over the page's end a plain unit goes on, else the TLB is asked.
    private mutating func emitWindowMiss(_ detour: Detour) {
        code.store(R.R11, CPUField.at(DAVIT_OFFSET_EXIT_VALUE))
        // The pages of the last byte and the first; equal ones differ by nothing. No flags are written.
        code.lea(R.RCX, .memory(R.R11, detour.size - 1))
        code.pext(R.RCX, R.RCX, mask: CPUField.at(DAVIT_OFFSET_PAGE_MASK))
        code.pext(R.R11, R.R11, mask: CPUField.at(DAVIT_OFFSET_PAGE_MASK))
        code.emit(.init(opcode: 0xF7, w: true), reg: 2, .register(R.R11))
        code.lea(R.RCX, .memory(R.RCX, index: R.R11, 1))
        code.load(R.R11, CPUField.at(DAVIT_OFFSET_EXIT_VALUE))
        code.jrcxz(over: 5)
        code.jump(to: code.cursor)
        let crossing = code.cursor - 4
        code.loadImmediate(R.RCX, UInt64(UInt32(bitPattern: detour.size) | DAVIT_WINDOW_MISS))
        code.call(detour.kind == .windowReadMiss ? stubs.readMiss : stubs.writeMiss)
        code.jump(to: detour.start)
        CodeEmitter.patch(crossing, to: code.cursor)
        emitLink(place: crossing, target: detour.target, stub: stubs.linkPlain)
    }

    /// What the rel32 at `place` leads to until it is linked.
    private mutating func emitLink(
        place: UnsafeMutablePointer<UInt8>, target: UInt64, stub: UnsafeMutablePointer<UInt8>
    ) {
        let start = code.cursor
        code.loadImmediate(R.R11, target)
        code.call(stub)
        links.append(PendingLink(place: place, stub: start, number: code.cursor))
        code.int32(0)
    }

    /// Host address of the unit's instruction at a linear address, if one begins there and the unit may be entered there. A plain
    /// unit is left at once.
    func boundary(at target: UInt64) -> UnsafeMutablePointer<UInt8>? {
        guard pass != .plain, let index = boundaryIndex(at: target), !boundaries[index].isInside else { return nil }
        return start + Int(boundaries[index].host)
    }

    func boundaryIndex(at target: UInt64) -> Int? {
        let offset = target &- startRIP
        guard offset <= 0xFFF else { return nil }
        var low = 0
        var high = boundaries.count
        while low < high {
            let middle = (low + high) / 2
            if UInt64(boundaries[middle].guest) < offset { low = middle + 1 } else { high = middle }
        }
        guard low < boundaries.count, UInt64(boundaries[low].guest) == offset else { return nil }
        return low
    }
}
