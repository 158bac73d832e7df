import CDavit

/// Turns runs of guest instructions into host code.
///
/// At every instruction boundary in emitted code the guest's registers are the guest's state: a destination is written only after
/// the last access that can fault. So a unit may be entered, left, or given up for the interpreter at any boundary.
/// No emitted check writes flags: guest arithmetic flags simply stay in EFLAGS.
struct Translator {
    let interpreter: Interpreter
    let decoder: Decoder
    let stubs: Stubs
    let mode: TranslationMode
    /// More than one vCPU: LOCK prefixes stay.
    let isShared: Bool

    var code: CodeEmitter
    /// The numbers that the unit, and the first of its boundaries, will have in the index.
    let unit: Int32
    let firstBoundary: Int32
    /// Guest physical and linear address of the unit's first instruction.
    let physical: UInt64
    let startRIP: UInt64
    let start: UnsafeMutablePointer<UInt8>
    /// Of the instruction being translated, and of the one after it.
    var rip: UInt64
    var nextRIP: UInt64
    var boundaries: [InstructionBoundary] = []
    var detours: [Detour] = []
    var links: [PendingLink] = []
    /// The instruction after STI is being translated.
    var isInShadow = false
    /// The next instruction is in the same page and works on data alone: it neither leaves the unit nor looks at RFLAGS.IF.
    var nextIsPlain = false
    /// Where `effectiveAddress` left its result.
    var addressRegister = HostRegister.R11
    /// Nothing falls through to the next instruction: the unit is over.
    var isOver = false
    var pass: Pass
    var registers = RegisterEpochs()
    /// What the first emission has seen, and what became of it: the number in `windows` of each access.
    var accesses: [WindowAccess] = []
    var windows: [Window] = []
    var plan: [Int16] = []
    /// Accesses emitted so far, and windows whose check was.
    var accessCount = 0
    var isChecked: [Bool] = []

    enum Pass {
        /// Each access is checked by itself.
        case plain
        /// The same, to see which accesses there are.
        case survey
        case windows
    }

    /// An instruction as it was decoded, once for both emissions.
    private struct Decoded {
        var instruction: Instruction
        /// From the unit's start, in bytes.
        var offset: Int
        var nextIsPlain: Bool
    }

    /// The most instructions of one unit.
    static let longestUnit = 64
    /// The most host code that one unit may take, in bytes: checked before translation begins.
    static let largestUnit = 64 * 512

    /// Code out of the straight line, emitted behind the unit.
    struct Detour {
        enum Kind {
            /// TLB miss: `start` is where the check begins, R11 or `register` holds the address.
            case readMiss, writeMiss
            /// The same for a window at R11; `target` is the instruction to go on at in a plain unit.
            case windowReadMiss, windowWriteMiss
            /// Leave with R11 = `target`.
            case lookup
            /// Go to `target` in another page, through the jump cache.
            case crossPage
            /// Go to `target` in this page, by a link.
            case link
        }
        var kind: Kind
        /// The rel32 that leads here.
        var place: UnsafeMutablePointer<UInt8>
        var start: UnsafeMutablePointer<UInt8>
        var target: UInt64 = 0
        var register: UInt8 = HostRegister.none
        var size: Int32 = 0
    }

    /// A link whose number is known only when the unit is entered into the index: `number` is where it is to be written.
    struct PendingLink {
        var place: UnsafeMutablePointer<UInt8>
        var stub: UnsafeMutablePointer<UInt8>
        var number: UnsafeMutablePointer<UInt8>
    }

    init(
        interpreter: Interpreter, decoder: Decoder, stubs: Stubs, mode: TranslationMode, isShared: Bool,
        unit: Int32, firstBoundary: Int32, physical: UInt64, rip: UInt64, isPlain: Bool,
        at place: UnsafeMutablePointer<UInt8>
    ) {
        pass = isPlain ? .plain : .survey
        self.unit = unit
        self.firstBoundary = firstBoundary
        self.interpreter = interpreter
        self.physical = physical
        self.decoder = decoder
        self.stubs = stubs
        self.mode = mode
        self.isShared = isShared
        self.code = CodeEmitter(cursor: place)
        self.start = place
        self.startRIP = rip
        self.rip = rip
        self.nextRIP = rip
    }

    /// Translates from `bytes`, the guest's code at `startRIP`, of which `available` bytes stand before the page's end.
    /// Returns how many guest bytes the unit covers; 0: not even the first instruction is whole in the page.
    mutating func translate(_ bytes: UnsafePointer<UInt8>, available: Int) -> Int {
        var decoded: [Decoded] = []
        var instruction = Instruction()
        var offset = 0
        // Bytes from the start that are marked as cached code: none is read before.
        var marked = 0
        while !isOver && decoded.count < Self.longestUnit {
            if offset + Instruction.maximumLength > marked && marked < available {
                interpreter.markCode(
                    physical + UInt64(marked), size: UInt64(min(64, available - marked)))
                marked = min(marked + 64, available)
            }
            let outcome = decoder.decode(
                bytes + offset, available: available - offset, codeSize: UInt32(mode.width), into: &instruction)
            guard outcome == .decoded else { break }
            let next = offset + Int(instruction.length)
            decoded.append(
                Decoded(
                    instruction: instruction, offset: offset,
                    nextIsPlain: instruction.operation == .sti && isPlain(bytes + next, available: available - next)))
            emit(decoded[decoded.count - 1])
            offset = next
        }
        if offset == 0 { return 0 }
        if !isOver { jump(to: (startRIP &+ UInt64(offset)) & mode.addressMask) }
        if pass == .survey && planWindows() {
            restart()
            for one in decoded { emit(one) }
            if !isOver { jump(to: (startRIP &+ UInt64(offset)) & mode.addressMask) }
            markInsides()
        }
        emitDetours()
        return offset
    }

    /// Begins anew at the start, with what the first emission has seen.
    private mutating func restart() {
        pass = .windows
        code.cursor = start
        boundaries.removeAll(keepingCapacity: true)
        detours.removeAll(keepingCapacity: true)
        isInShadow = false
        isOver = false
        accessCount = 0
        isChecked = [Bool](repeating: false, count: windows.count)
    }

    private mutating func emit(_ decoded: Decoded) {
        let instruction = decoded.instruction
        rip = startRIP &+ UInt64(decoded.offset)
        nextRIP = (rip &+ UInt64(instruction.length)) & mode.addressMask
        boundaries.append(
            InstructionBoundary(
                host: UInt32(truncatingIfNeeded: code.cursor - start), guest: UInt16(truncatingIfNeeded: decoded.offset)
            ))
        nextIsPlain = decoded.nextIsPlain
        let endsShadow = isInShadow
        if emit(instruction) {
            noteDefinitions(instruction)
        } else {
            interpret(instruction.operation)
            registers.defineAll()
            if instruction.operation.endsUnit { isOver = true }
        }
        if endsShadow { shadowEnd() }
    }

    private func isPlain(_ bytes: UnsafePointer<UInt8>, available: Int) -> Bool {
        var instruction = Instruction()
        guard
            decoder.decode(bytes, available: available, codeSize: UInt32(mode.width), into: &instruction) == .decoded
        else { return false }
        switch instruction.operation {
        case .add, .or, .and, .sub, .xor, .cmp, .test, .inc, .dec, .mov, .movzx, .movsx, .movsxd, .lea, .push, .pop,
            .nop:
            return true
        default: return false
        }
    }

    /// Leaves the current instruction to the interpreter.
    mutating func interpret(_ operation: Operation) {
        code.call(stubs.interpret)
        numbers(operation)
    }

    /// Leaves the current instruction to the interpreter unless RCX is zero.
    mutating func interpretIfNotZero(_ operation: Operation) {
        code.jrcxz(over: 5 + Self.numbersSize)
        interpret(operation)
    }

    /// What the run loop is told of an instruction that is left to the interpreter.
    mutating func numbers(_ operation: Operation) {
        code.int32(unit)
        code.int32(firstBoundary + Int32(truncatingIfNeeded: boundaries.count - 1))
        code.int32(Int32(operation.rawValue))
    }

    /// In bytes.
    static let numbersSize: UInt8 = 12
}

extension Operation {
    /// After it the mode, the mapping of code or the instruction pointer may be another.
    var endsUnit: Bool {
        switch self {
        case .jcc, .jmp, .call, .jmpIndirect, .callIndirect, .ret, .loop, .loope, .loopne, .jcxz, .jmpFar, .callFar,
            .jmpFarIndirect, .callFarIndirect, .retFar, .iret, .int3, .int, .into, .int1, .ud, .invalid, .hlt, .syscall,
            .sysret, .sysenter, .sysexit, .movToCR, .movToDR, .lmsw, .clts, .invlpg, .invpcid, .wrmsr, .xsetbv, .popf,
            .sti,
            .clac, .stac, .popSegment, .movToSegment, .les, .lds, .lss, .vmcall, .vmmcall:
            true
        default: false
        }
    }
}
