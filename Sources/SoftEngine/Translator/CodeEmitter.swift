/// A register of the host CPU, by its number in instruction encodings.
enum HostRegister {
    static let RAX: UInt8 = 0
    static let RCX: UInt8 = 1
    static let RDX: UInt8 = 2
    static let RBX: UInt8 = 3
    static let RSP: UInt8 = 4
    static let RBP: UInt8 = 5
    static let RSI: UInt8 = 6
    static let RDI: UInt8 = 7
    static let R8: UInt8 = 8
    static let R9: UInt8 = 9
    static let R10: UInt8 = 10
    static let R11: UInt8 = 11
    static let R12: UInt8 = 12
    static let R13: UInt8 = 13
    static let R14: UInt8 = 14
    static let R15: UInt8 = 15
    static let none: UInt8 = 0xFF
}

/// What ModRM.rm names in an emitted instruction: a register, or memory at base + index * 2^scale + displacement.
struct HostOperand {
    var register: UInt8 = HostRegister.none
    var base: UInt8 = HostRegister.none
    var index: UInt8 = HostRegister.none
    var scale: UInt8 = 0
    var displacement: Int32 = 0

    static func register(_ number: UInt8) -> HostOperand { HostOperand(register: number) }

    static func memory(_ base: UInt8, index: UInt8 = HostRegister.none, scale: UInt8 = 0, _ displacement: Int32 = 0)
        -> HostOperand
    {
        HostOperand(base: base, index: index, scale: scale, displacement: displacement)
    }
}

/// Writes x86-64 machine code through the writable view of code memory.
///
/// The caller sees to it that there is room (`Translator` reserves the most that one unit can need before it begins).
struct CodeEmitter {
    /// Where the next byte goes.
    ///
    /// Unsafe: valid as long as the code memory that it was taken from.
    var cursor: UnsafeMutablePointer<UInt8>

    @inline(__always)
    mutating func byte(_ value: UInt8) {
        cursor.pointee = value
        cursor += 1
    }

    mutating func int32(_ value: Int32) {
        UnsafeMutableRawPointer(cursor).storeBytes(of: value, as: Int32.self)
        cursor += 4
    }

    mutating func int64(_ value: Int64) {
        UnsafeMutableRawPointer(cursor).storeBytes(of: value, as: Int64.self)
        cursor += 8
    }

    /// How REX, or the low bits of VEX, are to be.
    struct Form {
        /// The mandatory or operand-size prefix: 0 none, 0x66, 0xF2, 0xF3.
        var prefix: UInt8 = 0
        /// Opcode map: 0 one byte, 1 0F, 2 0F 38, 3 0F 3A.
        var map: UInt8 = 0
        var opcode: UInt8
        var w = false
        /// A REX prefix even if it is empty, so that byte registers 4-7 are SPL-DIL.
        var rex = false
        /// F0 before everything.
        var lock = false
        /// VEX-encoded: with L and vvvv.
        var vex = false
        var l = false
        var vvvv: UInt8 = 0
    }

    /// Prefixes, opcode, ModRM, SIB and displacement. The immediate is the caller's.
    mutating func emit(_ form: Form, reg: UInt8, _ rm: HostOperand) {
        let isRegister = rm.register != HostRegister.none
        let b = isRegister ? rm.register : rm.base
        let rexB = b != HostRegister.none && b & 8 != 0
        let rexX = !isRegister && rm.index != HostRegister.none && rm.index & 8 != 0
        let rexR = reg & 8 != 0
        if form.vex {
            vexPrefix(form, r: rexR, x: rexX, b: rexB)
        } else {
            if form.lock { byte(0xF0) }
            if form.prefix != 0 { byte(form.prefix) }
            let rex: UInt8 = 0x40 | (form.w ? 8 : 0) | (rexR ? 4 : 0) | (rexX ? 2 : 0) | (rexB ? 1 : 0)
            if rex != 0x40 || form.rex { byte(rex) }
            if form.map != 0 { byte(0x0F) }
            if form.map == 2 { byte(0x38) }
            if form.map == 3 { byte(0x3A) }
        }
        byte(form.opcode)
        if isRegister {
            byte(0xC0 | (reg & 7) << 3 | rm.register & 7)
        } else {
            memoryOperand(reg: reg & 7, rm)
        }
    }

    private mutating func vexPrefix(_ form: Form, r: Bool, x: Bool, b: Bool) {
        let pp: UInt8 = form.prefix == 0x66 ? 1 : form.prefix == 0xF3 ? 2 : form.prefix == 0xF2 ? 3 : 0
        let last: UInt8 = (~form.vvvv & 15) << 3 | (form.l ? 4 : 0) | pp
        if !x && !b && !form.w && form.map == 1 {
            byte(0xC5)
            byte((r ? 0 : 0x80) | last)
        } else {
            byte(0xC4)
            byte((r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | form.map)
            byte((form.w ? 0x80 : 0) | last)
        }
    }

    private mutating func memoryOperand(reg: UInt8, _ rm: HostOperand) {
        let hasIndex = rm.index != HostRegister.none
        if rm.base == HostRegister.none {
            // No base: SIB with base 101 under mod 00.
            byte(reg << 3 | 4)
            byte(rm.scale << 6 | (hasIndex ? (rm.index & 7) << 3 : 4 << 3) | 5)
            int32(rm.displacement)
            return
        }
        let base = rm.base & 7
        let mod: UInt8 =
            rm.displacement == 0 && base != 5
            ? 0 : Int32(Int8(truncatingIfNeeded: rm.displacement)) == rm.displacement ? 1 : 2
        if hasIndex || base == 4 {
            byte(mod << 6 | reg << 3 | 4)
            byte(rm.scale << 6 | (hasIndex ? (rm.index & 7) << 3 : 4 << 3) | base)
        } else {
            byte(mod << 6 | reg << 3 | base)
        }
        if mod == 1 { byte(UInt8(truncatingIfNeeded: rm.displacement)) }
        if mod == 2 { int32(rm.displacement) }
    }

    // MARK: - The few instructions that the translator's own code is made of. None writes flags unless it says so.

    /// MOV r64, r/m64.
    mutating func load(_ register: UInt8, _ from: HostOperand) {
        emit(Form(opcode: 0x8B, w: true), reg: register, from)
    }
    /// MOV r32, r/m32.
    mutating func load32(_ register: UInt8, _ from: HostOperand) { emit(Form(opcode: 0x8B), reg: register, from) }
    /// MOV r/m64, r64.
    mutating func store(_ register: UInt8, _ to: HostOperand) { emit(Form(opcode: 0x89, w: true), reg: register, to) }
    mutating func store32(_ register: UInt8, _ to: HostOperand) { emit(Form(opcode: 0x89), reg: register, to) }
    /// MOV r64, r64.
    mutating func move(_ to: UInt8, _ from: UInt8) { if to != from { load(to, .register(from)) } }
    /// MOV m32, imm32.
    mutating func store32(immediate: Int32, _ to: HostOperand) {
        emit(Form(opcode: 0xC7), reg: 0, to)
        int32(immediate)
    }
    /// LEA r64, m.
    mutating func lea(_ register: UInt8, _ address: HostOperand) {
        emit(Form(opcode: 0x8D, w: true), reg: register, address)
    }
    /// LEA r32, m: the address wrapped to 32 bits.
    mutating func lea32(_ register: UInt8, _ address: HostOperand) { emit(Form(opcode: 0x8D), reg: register, address) }
    /// The shortest MOV that leaves `value` in the register.
    mutating func loadImmediate(_ register: UInt8, _ value: UInt64) {
        if value <= 0xFFFF_FFFF {
            if register & 8 != 0 { byte(0x41) }
            byte(0xB8 | register & 7)
            int32(Int32(truncatingIfNeeded: value))
        } else if Int64(bitPattern: value) == Int64(Int32(truncatingIfNeeded: value)) {
            emit(Form(opcode: 0xC7, w: true), reg: 0, .register(register))
            int32(Int32(truncatingIfNeeded: value))
        } else {
            byte(register & 8 != 0 ? 0x49 : 0x48)
            byte(0xB8 | register & 7)
            int64(Int64(bitPattern: value))
        }
    }
    /// PEXT r64, r64, m64.
    mutating func pext(_ to: UInt8, _ source: UInt8, mask: HostOperand) {
        emit(Form(prefix: 0xF3, map: 2, opcode: 0xF5, w: true, vex: true, vvvv: source), reg: to, mask)
    }
    /// PDEP r64, r64, m64.
    mutating func pdep(_ to: UInt8, _ source: UInt8, mask: HostOperand) {
        emit(Form(prefix: 0xF2, map: 2, opcode: 0xF5, w: true, vex: true, vvvv: source), reg: to, mask)
    }
    /// RORX r64, r64, imm8.
    mutating func rorx(_ to: UInt8, _ from: UInt8, _ count: UInt8) {
        emit(Form(prefix: 0xF2, map: 3, opcode: 0xF0, w: true, vex: true), reg: to, .register(from))
        byte(count)
    }
    /// JRCXZ over `skipped` bytes.
    mutating func jrcxz(over skipped: UInt8) {
        byte(0xE3)
        byte(skipped)
    }
    /// JMP m64.
    mutating func jump(_ through: HostOperand) { emit(Form(opcode: 0xFF), reg: 4, through) }

    /// JMP rel32; `target` is a place in the same writable view.
    mutating func jump(to target: UnsafeMutablePointer<UInt8>) {
        byte(0xE9)
        int32(Int32(truncatingIfNeeded: target - (cursor + 4)))
    }
    /// Jcc rel32.
    mutating func jump(condition: UInt8, to target: UnsafeMutablePointer<UInt8>) {
        byte(0x0F)
        byte(0x80 | condition)
        int32(Int32(truncatingIfNeeded: target - (cursor + 4)))
    }
    /// CALL rel32.
    mutating func call(_ target: UnsafeMutablePointer<UInt8>) {
        byte(0xE8)
        int32(Int32(truncatingIfNeeded: target - (cursor + 4)))
    }
    /// Lets the rel32 at `place` lead to `target`.
    static func patch(_ place: UnsafeMutablePointer<UInt8>, to target: UnsafeMutablePointer<UInt8>) {
        let distance = Int32(truncatingIfNeeded: target - (place + 4))
        UnsafeMutableRawPointer(place).storeBytes(of: distance, as: Int32.self)
    }
}

// What writes flags: for places where the guest's are dead or put away.
extension CodeEmitter {
    /// By the number that the opcode has in its bits 3-5.
    enum ALUOperation: UInt8 {
        case add, or, adc, sbb, and, sub, xor, cmp
    }

    /// ADD, OR ... CMP r64, r/m64.
    mutating func alu(_ operation: ALUOperation, _ register: UInt8, _ source: HostOperand) {
        emit(Form(opcode: operation.rawValue << 3 | 3, w: true), reg: register, source)
    }

    /// ADD, OR ... CMP r64, imm32.
    mutating func alu(_ operation: ALUOperation, _ register: UInt8, immediate: Int32) {
        emit(Form(opcode: 0x81, w: true), reg: operation.rawValue, .register(register))
        int32(immediate)
    }

    /// SHL (4) or SHR (5) r64.
    mutating func shift(_ register: UInt8, left: Bool, by count: UInt8) {
        emit(Form(opcode: 0xC1, w: true), reg: left ? 4 : 5, .register(register))
        byte(count)
    }

    /// AL = OF, AH = the other arithmetic flags. Writes no flags.
    mutating func saveFlags() {
        byte(0x0F)  // SETO AL
        byte(0x90)
        byte(0xC0)
        byte(0x9F)  // LAHF
    }

    /// The flags as `saveFlags` left them in AL and AH.
    mutating func restoreFlags() {
        byte(0x04)  // ADD AL, 7F
        byte(0x7F)
        byte(0x9E)  // SAHF
    }

    /// RCX = the arithmetic flags, as they stand in RFLAGS. Writes RAX and flags.
    mutating func storeArithmeticFlags() {
        saveFlags()
        emit(Form(map: 1, opcode: 0xB6), reg: HostRegister.RCX, .register(HostRegister.RSP))  // MOVZX ECX, AH
        emit(Form(map: 1, opcode: 0xB6), reg: HostRegister.RAX, .register(HostRegister.RAX))  // MOVZX EAX, AL
        alu(.and, HostRegister.RCX, immediate: 0xD5)
        shift(HostRegister.RAX, left: true, by: 11)
        alu(.or, HostRegister.RCX, .register(HostRegister.RAX))
    }

    /// The arithmetic flags from RFLAGS as it stands in both RAX and RCX. Writes both.
    mutating func loadArithmeticFlags() {
        // OF by an addition that overflows, the others by SAHF: POPF is several times slower.
        byte(0x88)  // MOV AH, AL
        byte(0xC4)
        shift(HostRegister.RCX, left: false, by: 11)
        alu(.and, HostRegister.RCX, immediate: 1)
        emit(Form(opcode: 0x80), reg: 0, .register(HostRegister.RCX))  // ADD CL, 7F
        byte(0x7F)
        byte(0x9E)  // SAHF
    }
}
