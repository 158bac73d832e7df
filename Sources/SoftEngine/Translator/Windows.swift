import CDavit

// Windows: several accesses near one base register share one TLB check.
//
// A unit is emitted once to see which accesses it makes. Those whose distance is known (the base only moves by constants between them, as RSP
// does under PUSH and POP) and that nothing comes between form a window; the unit is then emitted again. The first access checks the
// whole window, and leaves the page's addend in `davit_cpu.windows` for the others. Where the window reaches over a page's end, or the
// check fails for good, execution goes on in a plain unit, one that checks each access by itself.

/// One memory access of a unit, in the order of emission.
struct WindowAccess: BitwiseCopyable {
    /// Guest register.
    var base: UInt8
    /// Changes whenever the base gets a value that has no known distance from the one before.
    var epoch: Int32
    /// How far the base has moved since the epoch began, and the access's place from where it was then; in bytes.
    var moved: Int64
    var place: Int64
    var size: Int32
    var isWrite: Bool
    /// Of the unit's instructions.
    var instruction: Int32
}

/// Accesses that share a check.
struct Window: BitwiseCopyable {
    var base: UInt8
    var epoch: Int32
    /// Jump targets inside the unit that stand before: a jump would come past the check.
    var targets: Int32
    var low: Int64
    /// One past the last byte.
    var high: Int64
    var isWrite: Bool
    var first: Int32
    var last: Int32
    var count: Int32
    /// In `davit_cpu.windows`; -1: not worth one.
    var slot: Int32 = -1

    /// In bytes: the longer, the more often it reaches over a page's end.
    static func longest(base: UInt8) -> Int64 { base == GuestRegisters.stackPointer ? 512 : 256 }
}

/// What is known of the guest's registers while a unit is emitted.
struct RegisterEpochs {
    private var epochs: InlineArray<16, Int32> = InlineArray(repeating: 0)
    private var moved: InlineArray<16, Int64> = InlineArray(repeating: 0)
    private var last: Int32 = 0

    func epoch(_ register: UInt8) -> Int32 { epochs[Int(register & 15)] }
    func moved(_ register: UInt8) -> Int64 { moved[Int(register & 15)] }

    mutating func move(_ register: UInt8, by distance: Int64) { moved[Int(register & 15)] &+= distance }

    mutating func define(_ register: UInt8) {
        last += 1
        epochs[Int(register & 15)] = last
        moved[Int(register & 15)] = 0
    }

    mutating func defineAll() { for register: UInt8 in 0..<16 { define(register) } }
}

extension Translator {
    /// Sorts the accesses of the first emission into windows; false if none is worth a second emission.
    mutating func planWindows() -> Bool {
        var isTarget = [Bool](repeating: false, count: boundaries.count)
        for detour in detours where detour.kind == .link {
            if let index = boundaryIndex(at: detour.target) { isTarget[index] = true }
        }
        var targets: [Int32] = []
        for i in isTarget.indices { targets.append((targets.last ?? 0) + (isTarget[i] ? 1 : 0)) }
        windows.removeAll(keepingCapacity: true)
        plan.removeAll(keepingCapacity: true)
        for access in accesses {
            let passed = targets[Int(access.instruction)]
            let window = windows.lastIndex { $0.takes(access, targets: passed) }
            if let window {
                windows[window].low = min(windows[window].low, access.place)
                windows[window].high = max(windows[window].high, access.place &+ Int64(access.size))
                windows[window].isWrite = windows[window].isWrite || access.isWrite
                windows[window].last = access.instruction
                windows[window].count += 1
            } else {
                windows.append(
                    Window(
                        base: access.base, epoch: access.epoch, targets: passed, low: access.place,
                        high: access.place &+ Int64(access.size), isWrite: access.isWrite, first: access.instruction,
                        last: access.instruction, count: 1))
            }
            plan.append(Int16(truncatingIfNeeded: window ?? windows.count - 1))
        }
        var slots: Int32 = 0
        for i in windows.indices where windows[i].count > 1 && slots < Int32(DAVIT_WINDOWS) {
            windows[i].slot = slots
            slots += 1
        }
        return slots > 0
    }

    /// Between the boundaries `first` and `last` of a window execution may not begin: the addend is not there.
    mutating func markInsides() {
        for window in windows where window.slot >= 0 && window.last > window.first {
            for i in Int(window.first) + 1...Int(window.last) { boundaries[i].isInside = true }
        }
    }

    /// The operand at a constant distance from a guest register that has a host register, checked by itself or with its window.
    mutating func nearOperand(_ base: UInt8, _ displacement: Int32, size: Int, write: Bool) -> HostOperand {
        let host = GuestRegisters.host(base)
        let number = accessCount
        accessCount += 1
        switch pass {
        case .survey:
            let moved = registers.moved(base)
            accesses.append(
                WindowAccess(
                    base: base, epoch: registers.epoch(base), moved: moved, place: moved &+ Int64(displacement),
                    size: Int32(size), isWrite: write, instruction: Int32(boundaries.count - 1)))
        case .windows:
            let index = Int(plan[number])
            let window = windows[index]
            guard window.slot >= 0 else { break }
            let slot = CPUField.at(DAVIT_OFFSET_WINDOWS, plus: 8 * Int(window.slot))
            var operand = HostOperand.memory(host, index: HostRegister.RCX, displacement)
            operand.scale = 0
            if isChecked[index] {
                code.load(HostRegister.RCX, slot)
            } else {
                isChecked[index] = true
                let low = Int32(truncatingIfNeeded: window.low &- accesses[number].moved)
                code.lea(HostRegister.R11, .memory(host, low))
                _ = check(
                    HostRegister.R11, size: Int(window.high &- window.low), write: window.isWrite, isWindow: true)
                code.store(HostRegister.RCX, slot)
            }
            return operand
        case .plain: break
        }
        if displacement == 0 { return check(host, size: size, write: write) }
        code.lea(HostRegister.R11, .memory(host, displacement))
        return check(HostRegister.R11, size: size, write: write)
    }

    /// What PUSH and POP move, at a constant distance from RSP.
    mutating func stackOperand(_ displacement: Int32, write: Bool) -> HostOperand {
        guard mode.is32Bit else {
            return nearOperand(GuestRegisters.stackPointer, displacement, size: 8, write: write)
        }
        code.lea32(HostRegister.R11, .memory(HostRegister.R13, displacement))
        return check(HostRegister.R11, size: 4, write: write)
    }

    /// What an instruction that was emitted does to the distances between addresses. Whatever is not listed may have changed all registers.
    mutating func noteDefinitions(_ instruction: Instruction) {
        let destination: UInt8? = instruction.isMemory ? nil : instruction.rm
        func define(_ register: UInt8?) {
            guard let register else { return }
            registers.define(register)
            // AH CH DH BH.
            if instruction.operandSize == 1 { registers.define(register & 3) }
        }
        // 32-bit code has no windows: addresses wrap.
        if mode.is32Bit { return }
        switch instruction.operation {
        case .cmp, .test, .bt, .jcc, .nop, .pause, .prefetch, .fence, .clc, .stc, .cmc, .sahf, .cli, .sti, .swapgs,
            .movnti:
            break
        case .push, .pushf: registers.move(GuestRegisters.stackPointer, by: -8)
        case .pop:
            registers.move(GuestRegisters.stackPointer, by: 8)
            registers.define(instruction.reg)
        case .add where instruction.form == .ei && !instruction.isMemory && instruction.operandSize == 8:
            registers.move(instruction.rm, by: instruction.immediate)
        case .sub where instruction.form == .ei && !instruction.isMemory && instruction.operandSize == 8:
            registers.move(instruction.rm, by: 0 &- instruction.immediate)
        case .inc where !instruction.isMemory && instruction.operandSize == 8: registers.move(instruction.rm, by: 1)
        case .dec where !instruction.isMemory && instruction.operandSize == 8: registers.move(instruction.rm, by: -1)
        case .lea
        where instruction.base == instruction.reg && instruction.index == Instruction.noRegister
            && instruction.operandSize == 8 && instruction.addressSize == 8:
            registers.move(instruction.reg, by: instruction.displacement)
        case .add, .or, .adc, .sbb, .and, .sub, .xor:
            define(instruction.form == .ai ? 0 : instruction.form == .ge ? instruction.reg : destination)
        case .inc, .dec, .neg, .not, .setcc, .rol, .ror, .rcl, .rcr, .shl, .shr, .sar, .shld, .shrd, .bts, .btr, .btc:
            define(destination)
        case .imul2, .movzx, .movsx, .movsxd, .cmov, .bsf, .bsr, .popcnt, .lzcnt, .tzcnt, .crc32, .lea, .bswap, .rorx,
            .andn, .bextr, .bzhi, .sarx, .shlx, .shrx, .pdep, .pext:
            registers.define(instruction.reg)
        case .mov:
            switch instruction.form {
            case .ge, .zi: define(instruction.reg)
            case .accumulatorFromOffset: registers.define(0)
            case .offsetFromAccumulator: break
            default: define(destination)
            }
        case .cbw: registers.define(0)
        case .cwd: registers.define(2)
        case .mul, .imul, .div, .idiv:
            registers.define(0)
            registers.define(2)
        case .vector, .x87, .vzero, .emms:
            let shape = decoder.shape(of: instruction)
            if shape.reg == .general && shape.access.contains(.writesReg) { registers.define(instruction.reg) }
            if shape.rm == .general && shape.access.contains(.writesRM) && !instruction.isMemory {
                registers.define(instruction.rm)
            }
            if shape.access.contains(.writesRCX) { registers.define(1) }
            if shape.access.contains(.writesAX) { registers.define(0) }
        default: registers.defineAll()
        }
    }
}

extension Window {
    /// An access that follows may share the check. Reads near RSP may share that of writes: the stack can be written.
    fileprivate func takes(_ access: WindowAccess, targets: Int32) -> Bool {
        guard base == access.base, epoch == access.epoch, self.targets == targets,
            isWrite == access.isWrite || base == GuestRegisters.stackPointer
        else { return false }
        return max(high, access.place &+ Int64(access.size)) &- min(low, access.place) <= Self.longest(base: base)
    }
}
