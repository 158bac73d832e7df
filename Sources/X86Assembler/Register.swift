/// A general register of the host by its number in instruction encodings.
public struct Register: Equatable, Sendable, BitwiseCopyable {
    public let number: UInt8

    @inlinable
    public init(_ number: UInt8) { self.number = number & 15 }

    public static let rax = Register(0)
    public static let rcx = Register(1)
    public static let rdx = Register(2)
    public static let rbx = Register(3)
    public static let rsp = Register(4)
    public static let rbp = Register(5)
    public static let rsi = Register(6)
    public static let rdi = Register(7)
    public static let r8 = Register(8)
    public static let r9 = Register(9)
    public static let r10 = Register(10)
    public static let r11 = Register(11)
    public static let r12 = Register(12)
    public static let r13 = Register(13)
    public static let r14 = Register(14)
    public static let r15 = Register(15)
}

/// What ModRM.rm names: a register, or memory at base + index * 2^scale + displacement.
public struct Operand: Equatable, Sendable, BitwiseCopyable {
    /// Register number, or `none` for memory.
    @usableFromInline let register: UInt8
    @usableFromInline let base: UInt8
    @usableFromInline let index: UInt8
    @usableFromInline let scale: UInt8
    @usableFromInline let displacement: Int32
    @usableFromInline static let none: UInt8 = 0xFF

    @usableFromInline
    init(register: UInt8, base: UInt8, index: UInt8, scale: UInt8, displacement: Int32) {
        self.register = register
        self.base = base
        self.index = index
        self.scale = scale
        self.displacement = displacement
    }

    /// A general or a vector register, as the instruction has it.
    @inlinable
    public static func register(_ number: UInt8) -> Operand {
        Operand(register: number & 15, base: none, index: none, scale: 0, displacement: 0)
    }

    @inlinable
    public static func register(_ register: Register) -> Operand { .register(register.number) }

    @inlinable
    public static func memory(_ base: Register, _ displacement: Int32 = 0) -> Operand {
        Operand(register: none, base: base.number, index: none, scale: 0, displacement: displacement)
    }

    /// `scale` is the shift count of the index, 0-3; RSP cannot be an index.
    @inlinable
    public static func memory(_ base: Register, index: Register, scale: UInt8, _ displacement: Int32 = 0) -> Operand {
        precondition(index != .rsp, "RSP cannot be an index")
        return Operand(
            register: none, base: base.number, index: index.number, scale: scale & 3, displacement: displacement)
    }
}

/// The condition of Jcc, SETcc and CMOVcc: the low four bits of their opcodes.
public enum Condition: UInt8, Sendable {
    case overflow, noOverflow, below, aboveOrEqual, equal, notEqual, belowOrEqual, above
    case sign, noSign, parity, noParity, less, greaterOrEqual, lessOrEqual, greater

    @inlinable
    public var negated: Condition { Condition(rawValue: rawValue ^ 1).unsafelyUnwrapped }
}

/// Two-operand arithmetic, by its number in opcodes 00-3F and in the groups 80-83.
public enum Arithmetic: UInt8, Sendable {
    case add, or, adc, sbb, and, sub, xor, cmp
}

/// Shifts and rotates, by their number in the groups C0, C1 and D0-D3.
public enum Shift: UInt8, Sendable {
    case rol, ror, rcl, rcr, shl, shr
    case sar = 7
}
