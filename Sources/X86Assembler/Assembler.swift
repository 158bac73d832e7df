/// A place in the code that jumps lead to: bound once, before or after the jumps are written.
public struct Label: BitwiseCopyable {
    /// Offset of the place, once bound.
    @usableFromInline var position: Int32 = -1
    /// Offset of the last rel32 that waits for the place; each holds the one before it, the first holds -1.
    @usableFromInline var waiting: Int32 = -1

    @inlinable
    public init() {}

    @inlinable
    public var isBound: Bool { position >= 0 }
}

/// Writes 64-bit x86 machine code into a buffer (Intel SDM vol. 2, chapter 2). It knows encodings, not what the code is for.
///
/// Code is written through one mapping and runs through another: `code` is the address at which the buffer's first byte runs.
/// Bytes past the end of the buffer are dropped and `overflowed` says so: check it once, at the end.
public struct Assembler {
    @usableFromInline let start: UnsafeMutablePointer<UInt8>
    @usableFromInline let capacity: Int
    /// Where the buffer's first byte runs.
    public let code: UInt
    /// Bytes written so far.
    public private(set) var count = 0
    public private(set) var overflowed = false

    /// Unsafe: `buffer` must stay writable as long as this is used.
    public init(buffer: UnsafeMutableRawBufferPointer, code: UInt) {
        start = buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self)
        capacity = buffer.count
        self.code = code
    }

    /// The address at which the next byte will run.
    public var address: UInt { code &+ UInt(count) }

    @inline(__always)
    public mutating func byte(_ value: UInt8) {
        guard count < capacity else {
            overflowed = true
            return
        }
        start[count] = value
        count &+= 1
    }

    @inline(__always)
    public mutating func bytes(_ values: UInt8...) {
        for value in values { byte(value) }
    }

    @inline(__always)
    public mutating func little<Value: FixedWidthInteger & BitwiseCopyable>(_ value: Value) {
        guard capacity &- count >= MemoryLayout<Value>.size else {
            overflowed = true
            return
        }
        UnsafeMutableRawPointer(start + count).storeBytes(of: value.littleEndian, as: Value.self)
        count &+= MemoryLayout<Value>.size
    }

    /// Single-byte NOPs are never run here: the code before jumps over them or ends.
    public mutating func align(to alignment: Int) {
        while address % UInt(alignment) != 0 && !overflowed { byte(0xCC) }
    }

    // MARK: Labels

    /// The label stands for the next byte.
    public mutating func bind(_ label: inout Label) {
        precondition(!label.isBound, "a label is bound once")
        label.position = Int32(truncatingIfNeeded: count)
        var place = label.waiting
        while place >= 0 {
            let slot = UnsafeMutableRawPointer(start + Int(place))
            let before = slot.loadUnaligned(as: Int32.self)
            slot.storeBytes(of: label.position &- (place &+ 4), as: Int32.self)
            place = before
        }
        label.waiting = -1
    }

    /// A rel32 that ends the instruction and leads to the label.
    public mutating func relative32(to label: inout Label) {
        let place = Int32(truncatingIfNeeded: count)
        if label.isBound {
            little(label.position &- (place &+ 4))
        } else {
            little(label.waiting)
            if !overflowed { label.waiting = place }
        }
    }

    // MARK: Encoding

    /// Opcode maps by their number in VEX: 0 stands for one-byte opcodes.
    public enum Map: UInt8, Sendable {
        case one, x0F, x0F38, x0F3A
    }

    /// Mandatory prefixes by their number in VEX.pp.
    public enum Prefix: UInt8, Sendable {
        case none, p66, pF3, pF2

        @usableFromInline var byte: UInt8 {
            switch self {
            case .none: 0
            case .p66: 0x66
            case .pF3: 0xF3
            case .pF2: 0xF2
            }
        }
    }

    /// A legacy-encoded instruction: prefix, REX as needed, opcode, ModRM and what follows it. An immediate is the caller's to add.
    /// `byteRegisters`: SPL BPL SIL DIL are meant by numbers 4-7.
    public mutating func legacy(
        _ prefix: Prefix, _ map: Map, _ opcode: UInt8, w: Bool = false, reg: UInt8, _ operand: Operand,
        byteRegisters: Bool = false
    ) {
        if prefix != .none { byte(prefix.byte) }
        var rex: UInt8 = w ? 0x48 : 0
        if reg & 8 != 0 { rex |= 0x44 }
        if operand.register != Operand.none {
            if operand.register & 8 != 0 { rex |= 0x41 }
            if byteRegisters && operand.register >= 4 { rex |= 0x40 }
        } else {
            if operand.base & 8 != 0 { rex |= 0x41 }
            if operand.index != Operand.none && operand.index & 8 != 0 { rex |= 0x42 }
        }
        if byteRegisters && reg >= 4 { rex |= 0x40 }
        if rex != 0 { byte(rex) }
        switch map {
        case .one: break
        case .x0F: byte(0x0F)
        case .x0F38: bytes(0x0F, 0x38)
        case .x0F3A: bytes(0x0F, 0x3A)
        }
        byte(opcode)
        modrm(reg: reg, operand)
    }

    /// A VEX-encoded instruction; `vvvv` is 0 where the form has no such operand. An immediate is the caller's to add.
    public mutating func vex(
        _ prefix: Prefix, _ map: Map, _ opcode: UInt8, w: Bool = false, l: Bool = false, reg: UInt8, vvvv: UInt8 = 0,
        _ operand: Operand
    ) {
        let isRegister = operand.register != Operand.none
        let b = isRegister ? operand.register & 8 : operand.base & 8
        let x = isRegister || operand.index == Operand.none ? 0 : operand.index & 8
        byte(0xC4)
        byte((reg & 8 == 0 ? 0x80 : 0) | (x == 0 ? 0x40 : 0) | (b == 0 ? 0x20 : 0) | map.rawValue)
        byte((w ? 0x80 : 0) | (~vvvv & 15) << 3 | (l ? 4 : 0) | prefix.rawValue)
        byte(opcode)
        modrm(reg: reg, operand)
    }

    private mutating func modrm(reg: UInt8, _ operand: Operand) {
        let middle = (reg & 7) << 3
        if operand.register != Operand.none { return byte(0xC0 | middle | operand.register & 7) }
        let displacement = operand.displacement
        let mode: UInt8
        // RBP and R13 as a base have no form without displacement.
        if displacement == 0 && operand.base & 7 != 5 {
            mode = 0
        } else if displacement == Int32(Int8(truncatingIfNeeded: displacement)) {
            mode = 0x40
        } else {
            mode = 0x80
        }
        if operand.index != Operand.none {
            byte(mode | middle | 4)
            byte(operand.scale << 6 | (operand.index & 7) << 3 | operand.base & 7)
        } else if operand.base & 7 == 4 {
            // RSP and R12 as a base need a SIB byte.
            byte(mode | middle | 4)
            byte(0x24)
        } else {
            byte(mode | middle | operand.base & 7)
        }
        if mode == 0x40 { byte(UInt8(truncatingIfNeeded: displacement)) }
        if mode == 0x80 { little(displacement) }
    }
}
