import CDavit
import X86Assembler

/// A guest instruction as its thunk has it: what is left when registers are renamed and the memory operand is moved.
///
/// In a vector thunk the operands are loaded into fixed registers: ModRM.reg XMM1, ModRM.rm XMM2, VEX.vvvv XMM3, the immediate's
/// XMM4, the implicit one XMM0; general registers are RAX. A thunk with x87 state loads all of it, and keeps register numbers.
struct ThunkForm: BitwiseCopyable {
    private let instruction: Instruction
    private let shape: VectorShape
    /// MXCSR.MM stands: it concerns every instruction with a memory operand.
    private let allowsMisaligned: Bool

    init(_ instruction: borrowing Instruction, _ shape: VectorShape, allowsMisaligned: Bool) {
        self.instruction = copy instruction
        self.shape = shape
        self.allowsMisaligned = allowsMisaligned
    }

    /// x87 and MMX: the thunk loads and saves FXSAVE's image. Conversions from memory to XMM touch no MMX register.
    @inline(__always)
    static func hasX87(_ instruction: borrowing Instruction, _ shape: VectorShape) -> Bool {
        let isMemory = instruction.isMemory
        return instruction.operation != .vector || shape.reg == .mmx || shape.rm == .mmx && !isMemory
            || shape.rm == .mmx && shape.reg == .none
    }

    /// Tells thunks apart; never 0.
    @inline(__always)
    static func key(_ instruction: borrowing Instruction, _ shape: VectorShape, allowsMisaligned: Bool) -> UInt64 {
        // The leading 1 keeps keys with more or fewer fields apart.
        var key: UInt64 = allowsMisaligned ? 3 : 2
        key = key << 8 | UInt64(instruction.opcode)
        key = key << 2 | UInt64(instruction.map & 3)
        // Mandatory prefixes, W, VEX, L: see `Instruction.Prefixes`.
        let prefixes = instruction.prefixes
        key = key << 8 | UInt64(prefixes.rawValue >> 1 & 7 | prefixes.rawValue >> 3 & 0x38)
        key = key << 1 | (instruction.isMemory ? 1 : 0)
        let immediate = UInt64(instruction.immediate & 0xFF)
        key = key << 8 | (shape.access.contains(.readsImmediateRegister) ? immediate & 15 : immediate)
        key = key << 8 | UInt64(instruction.immediate2 & 0xFF)
        if hasX87(instruction, shape) {
            key = key << 8 | UInt64(instruction.isMemory ? instruction.modrm & 0x38 : instruction.modrm)
            key = key << 8 | UInt64(instruction.reg & 15) << 4 | UInt64(instruction.isMemory ? 0 : instruction.rm & 15)
            key = key << 8 | UInt64(instruction.operation == .x87 ? instruction.operandSize : 0)
        } else if shape.reg == .none {
            key = key << 8 | UInt64(instruction.modrm & 0x38)
        }
        return key
    }

    private var access: VectorShape.Access { shape.access }
    private var isVEX: Bool { instruction.prefixes.contains(.vex) }
    private var isWide: Bool { instruction.prefixes.contains(.l) }

    /// Writes the thunk: see `HostExecutor.Thunk`.
    func emit(_ assembler: inout Assembler) {
        if Self.hasX87(instruction, shape) { emitX87(&assembler) } else { emitVector(&assembler) }
    }

    // The arguments, by System V's convention.
    private static let regPlace = Register.rdi
    private static let rmPlace = Register.rsi
    private static let vvvvPlace = Register.rdx
    private static let immediatePlace = Register.rcx
    private static let cpu = Register.r8
    /// Where a host signal sends the thunk, and the vector that it leaves: see `davit_catch_thunk_faults`.
    private static let faultExit = Register.r9
    private static let faultVector = Register.r10

    private static let xsave = Int32(DAVIT_OFFSET_XSAVE.rawValue)
    private static let mxcsr = Operand.memory(cpu, xsave + 24)
    /// In the red zone, below what a push takes: the thunk calls nothing.
    private static let hostMXCSR = Operand.memory(.rsp, -24)
    private static let rflags = Operand.memory(cpu, Int32(DAVIT_OFFSET_RFLAGS.rawValue))
    /// From the lower to the upper half of a YMM register in the XSAVE image.
    private static let upperHalf: Int32 = 576 - 160

    private static func generalRegister(_ number: Int32) -> Operand { .memory(cpu, number * 8) }

    // MARK: Vectors

    private func emitVector(_ assembler: inout Assembler) {
        let usesMXCSR = allowsMisaligned || Self.usesMXCSR(instruction)
        let xmm0 = Self.xsave + 160
        if shape.reg == .vector && access.contains(.readsReg) { load(&assembler, 1, Self.regPlace) }
        if !instruction.isMemory && access.contains(.readsRM) {
            if shape.rm == .vector { load(&assembler, 2, Self.rmPlace) }
            if shape.rm == .general { assembler.load(.rax, .memory(Self.rmPlace), size: 8) }
        }
        if access.contains(.readsVVVV) { load(&assembler, 3, Self.vvvvPlace) }
        if access.contains(.readsImmediateRegister) { load(&assembler, 4, Self.immediatePlace) }
        if access.contains(.readsXMM0) { assembler.loadVector(0, .memory(Self.cpu, xmm0)) }
        if access.contains(.readsRAXAndRDX) {
            assembler.load(.rax, Self.generalRegister(0), size: 8)
            assembler.load(.rdx, Self.generalRegister(2), size: 8)
        }
        if usesMXCSR {
            assembler.stmxcsr(Self.hostMXCSR)
            assembler.ldmxcsr(Self.mxcsr)
        }
        var fault = Label()
        assembler.lea(Self.faultExit, &fault)
        emitVectorInstruction(&assembler)
        if access.contains(.writesFlags) { takeFlags(&assembler) }
        if access.contains(.writesRCX) { assembler.store(Self.generalRegister(1), .rcx, size: 8) }
        if usesMXCSR {
            assembler.stmxcsr(Self.mxcsr)
            assembler.ldmxcsr(Self.hostMXCSR)
        }
        if access.contains(.writesReg) {
            if shape.reg == .vector { store(&assembler, 1, Self.regPlace, 0) }
            if shape.reg == .general { assembler.store(.memory(Self.regPlace), .rax, size: 8) }
        }
        if !instruction.isMemory && access.contains(.writesRM) {
            if shape.rm == .vector { store(&assembler, 2, Self.rmPlace, 0) }
            if shape.rm == .general { assembler.store(.memory(Self.rmPlace), .rax, size: 8) }
        }
        if access.contains(.writesVVVV) { store(&assembler, 3, Self.vvvvPlace, 0) }
        if access.contains(.writesXMM0) { store(&assembler, 0, Self.cpu, xmm0) }
        if isVEX { assembler.vzeroupper() }
        assembler.move(.rax, UInt64(0))
        assembler.ret()

        assembler.bind(&fault)
        if usesMXCSR {
            assembler.stmxcsr(Self.mxcsr)
            assembler.ldmxcsr(Self.hostMXCSR)
        }
        if isVEX { assembler.vzeroupper() }
        assembler.move(.rax, Self.faultVector)
        assembler.ret()
    }

    private func emitVectorInstruction(_ assembler: inout Assembler) {
        let reg: UInt8 = shape.reg == .vector ? 1 : shape.reg == .general ? 0 : instruction.modrm >> 3 & 7
        let rm: Operand =
            instruction.isMemory ? .memory(Self.rmPlace) : .register(shape.rm == .vector ? 2 : 0)
        let map = Assembler.Map(rawValue: instruction.map & 3).unsafelyUnwrapped
        let w = instruction.prefixes.contains(.w)
        if isVEX {
            let usesVVVV = access.contains(.readsVVVV) || access.contains(.writesVVVV)
            assembler.vex(
                prefix, map, instruction.opcode, w: w, l: isWide, reg: reg, vvvv: usesVVVV ? 3 : 0, rm)
        } else {
            assembler.legacy(prefix, map, instruction.opcode, w: w, reg: reg, rm)
        }
        emitImmediate(&assembler)
    }

    private var prefix: Assembler.Prefix {
        let prefixes = instruction.prefixes
        if prefixes.contains(.rep) { return .pF3 }
        if prefixes.contains(.repne) { return .pF2 }
        return prefixes.contains(.operandSize) ? .p66 : .none
    }

    private func emitImmediate(_ assembler: inout Assembler) {
        guard access.contains(.immediate) else { return }
        var value = UInt8(truncatingIfNeeded: instruction.immediate)
        if access.contains(.readsImmediateRegister) { value = value & 15 | 4 << 4 }
        assembler.byte(value)
        // EXTRQ and INSERTQ have two.
        if instruction.map == 1 && instruction.opcode == 0x78 {
            assembler.byte(UInt8(truncatingIfNeeded: instruction.immediate2))
        }
    }

    private func load(_ assembler: inout Assembler, _ register: UInt8, _ place: Register) {
        assembler.loadVector(register, .memory(place))
        if isWide { assembler.loadUpperHalf(register, .memory(place, Self.upperHalf)) }
    }

    /// VEX-encoded instructions clear what they do not write of a register, the others leave the upper half alone.
    private func store(_ assembler: inout Assembler, _ register: UInt8, _ place: Register, _ offset: Int32) {
        assembler.storeVector(.memory(place, offset), register)
        if isVEX { assembler.storeUpperHalf(.memory(place, offset + Self.upperHalf), register) }
    }

    /// Puts the arithmetic flags into the guest's RFLAGS; uses RDX, and RAX unless it holds a result.
    private func takeFlags(_ assembler: inout Assembler) {
        let arithmetic: Int32 = 0x8D5
        assembler.pushFlags()
        assembler.pop(.rdx)
        assembler.arithmetic(.and, .register(.rdx), constant: arithmetic)
        assembler.arithmetic(.and, Self.rflags, constant: ~arithmetic)
        assembler.arithmetic(.or, Self.rflags, .rdx)
    }

    /// Floating-point instructions round, and note exceptions in MXCSR. Moves, logic, shuffles and integers do not.
    private static func usesMXCSR(_ instruction: borrowing Instruction) -> Bool {
        let opcode = instruction.opcode
        switch instruction.map {
        case 1:
            switch opcode {
            case 0x2A, 0x2C...0x2F, 0x51...0x53, 0x58...0x5F, 0x7C, 0x7D, 0xC2, 0xD0, 0xE6: return true
            default: return false
            }
        case 2: return opcode == 0x13 || (0x96...0xBF).contains(opcode)
        default: return (0x08...0x0B).contains(opcode) || opcode == 0x1D || opcode == 0x40 || opcode == 0x41
        }
    }

    // MARK: x87 and MMX

    private func emitX87(_ assembler: inout Assembler) {
        let image = Operand.memory(Self.cpu, Self.xsave)
        assembler.stmxcsr(Self.hostMXCSR)
        if readsFlags {
            assembler.load(.rax, Self.rflags, size: 8)
            assembler.arithmetic(.and, .register(.rax), constant: 0x8D5)
            assembler.push(.rax)
            assembler.popFlags()
        }
        assembler.fxrstor64(image)
        if !instruction.isMemory && shape.rm == .general && access.contains(.readsRM) {
            assembler.load(.rax, .memory(Self.rmPlace), size: 8)
        }
        var fault = Label()
        assembler.lea(Self.faultExit, &fault)
        emitX87Instruction(&assembler)
        assembler.fxsave64(image)
        if access.contains(.writesFlags) { takeFlags(&assembler) }
        assembler.fninit()
        assembler.ldmxcsr(Self.hostMXCSR)
        if access.contains(.writesAX) { assembler.store(Self.generalRegister(0), .rax, size: 2) }
        if shape.reg == .general && access.contains(.writesReg) {
            assembler.store(.memory(Self.regPlace), .rax, size: 8)
        }
        if !instruction.isMemory && shape.rm == .general && access.contains(.writesRM) {
            assembler.store(.memory(Self.rmPlace), .rax, size: 8)
        }
        assembler.move(.rax, UInt64(0))
        assembler.ret()

        assembler.bind(&fault)
        assembler.fxsave64(image)
        assembler.fninit()
        assembler.ldmxcsr(Self.hostMXCSR)
        assembler.move(.rax, Self.faultVector)
        assembler.ret()
    }

    /// FCMOVcc.
    private var readsFlags: Bool {
        instruction.operation == .x87 && !instruction.isMemory && instruction.opcode & 0xFE == 0xDA
            && instruction.modrm < 0xE0
    }

    private func emitX87Instruction(_ assembler: inout Assembler) {
        if instruction.operation == .emms { return assembler.bytes(0x0F, 0x77) }
        if instruction.operation == .x87 {
            guard instruction.isMemory else { return assembler.bytes(instruction.opcode, instruction.modrm) }
            // The short forms of FNSTENV, FLDENV, FNSAVE and FRSTOR.
            let isShort = instruction.operandSize == 14 || instruction.operandSize == 94
            assembler.legacy(
                isShort ? .p66 : .none, .one, instruction.opcode, reg: instruction.modrm >> 3 & 7,
                .memory(Self.rmPlace))
            return
        }
        let reg: UInt8 =
            shape.reg == .none ? instruction.modrm >> 3 & 7 : shape.reg == .general ? 0 : instruction.reg
        let rm: Operand =
            instruction.isMemory ? .memory(Self.rmPlace) : .register(shape.rm == .general ? 0 : instruction.rm)
        let map = Assembler.Map(rawValue: instruction.map & 3).unsafelyUnwrapped
        assembler.legacy(
            prefix, map, instruction.opcode, w: instruction.prefixes.contains(.w), reg: reg, rm)
        emitImmediate(&assembler)
    }
}
