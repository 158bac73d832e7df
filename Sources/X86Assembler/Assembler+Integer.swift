// Integer instructions, in Intel's operand order: destination first. `size` is in bytes: 4 or 8 where nothing else is said.
extension Assembler {
    /// Loads 1, 2, 4 or 8 bytes; one and two bytes are zero-extended to 32 bits.
    public mutating func load(_ destination: Register, _ source: Operand, size: Int) {
        switch size {
        case 1: legacy(.none, .x0F, 0xB6, reg: destination.number, source)
        case 2: legacy(.none, .x0F, 0xB7, reg: destination.number, source)
        default: legacy(.none, .one, 0x8B, w: size == 8, reg: destination.number, source)
        }
    }

    /// Stores 1, 2, 4 or 8 bytes.
    public mutating func store(_ destination: Operand, _ source: Register, size: Int) {
        switch size {
        case 1: legacy(.none, .one, 0x88, reg: source.number, destination, byteRegisters: true)
        case 2: legacy(.p66, .one, 0x89, reg: source.number, destination)
        default: legacy(.none, .one, 0x89, w: size == 8, reg: source.number, destination)
        }
    }

    public mutating func move(_ destination: Register, _ source: Register, size: Int = 8) {
        legacy(.none, .one, 0x8B, w: size == 8, reg: destination.number, .register(source))
    }

    /// Loads a constant in the shortest form; flags are kept.
    public mutating func move(_ destination: Register, _ value: UInt64) {
        if value <= 0xFFFF_FFFF {
            if destination.number & 8 != 0 { byte(0x41) }
            byte(0xB8 | destination.number & 7)
            little(UInt32(truncatingIfNeeded: value))
        } else if Int64(bitPattern: value) >= Int64(Int32.min) && Int64(bitPattern: value) < 0 {
            legacy(.none, .one, 0xC7, w: true, reg: 0, .register(destination))
            little(Int32(truncatingIfNeeded: Int64(bitPattern: value)))
        } else {
            byte(destination.number & 8 != 0 ? 0x49 : 0x48)
            byte(0xB8 | destination.number & 7)
            little(value)
        }
    }

    /// Stores a constant of 4 bytes, sign-extended to `size`.
    public mutating func store(_ destination: Operand, constant: Int32, size: Int) {
        legacy(.none, .one, 0xC7, w: size == 8, reg: 0, destination)
        little(constant)
    }

    public mutating func arithmetic(_ operation: Arithmetic, _ destination: Register, _ source: Operand, size: Int = 8)
    {
        legacy(.none, .one, operation.rawValue << 3 | 3, w: size == 8, reg: destination.number, source)
    }

    public mutating func arithmetic(_ operation: Arithmetic, _ destination: Operand, _ source: Register, size: Int = 8)
    {
        legacy(.none, .one, operation.rawValue << 3 | 1, w: size == 8, reg: source.number, destination)
    }

    public mutating func arithmetic(_ operation: Arithmetic, _ destination: Operand, constant: Int32, size: Int = 8) {
        if constant == Int32(Int8(truncatingIfNeeded: constant)) {
            legacy(.none, .one, 0x83, w: size == 8, reg: operation.rawValue, destination)
            byte(UInt8(truncatingIfNeeded: constant))
        } else {
            legacy(.none, .one, 0x81, w: size == 8, reg: operation.rawValue, destination)
            little(constant)
        }
    }

    public mutating func test(_ left: Register, _ right: Register, size: Int = 8) {
        legacy(.none, .one, 0x85, w: size == 8, reg: right.number, .register(left))
    }

    public mutating func shift(_ operation: Shift, _ destination: Operand, count: UInt8, size: Int = 8) {
        legacy(.none, .one, 0xC1, w: size == 8, reg: operation.rawValue, destination)
        byte(count)
    }

    public mutating func lea(_ destination: Register, _ source: Operand, size: Int = 8) {
        legacy(.none, .one, 0x8D, w: size == 8, reg: destination.number, source)
    }

    /// The address of the label's place.
    public mutating func lea(_ destination: Register, _ label: inout Label) {
        bytes(destination.number & 8 != 0 ? 0x4C : 0x48, 0x8D, (destination.number & 7) << 3 | 5)
        relative32(to: &label)
    }

    /// Rotates right without touching flags (BMI2).
    public mutating func rorx(_ destination: Register, _ source: Operand, count: UInt8, size: Int = 8) {
        vex(.pF2, .x0F3A, 0xF0, w: size == 8, reg: destination.number, source)
        byte(count)
    }

    public mutating func push(_ register: Register) {
        if register.number & 8 != 0 { byte(0x41) }
        byte(0x50 | register.number & 7)
    }

    public mutating func pop(_ register: Register) {
        if register.number & 8 != 0 { byte(0x41) }
        byte(0x58 | register.number & 7)
    }

    public mutating func pushFlags() { byte(0x9C) }
    public mutating func popFlags() { byte(0x9D) }
    public mutating func ret() { byte(0xC3) }

    public mutating func jump(_ label: inout Label) {
        byte(0xE9)
        relative32(to: &label)
    }

    public mutating func jump(_ condition: Condition, _ label: inout Label) {
        bytes(0x0F, 0x80 | condition.rawValue)
        relative32(to: &label)
    }

    public mutating func jump(_ target: Operand) { legacy(.none, .one, 0xFF, reg: 4, target) }
    public mutating func call(_ target: Operand) { legacy(.none, .one, 0xFF, reg: 2, target) }

    /// Jumps to an address within 2 GiB of this code; returns the offset of its rel32, for `patchJump`.
    @discardableResult
    public mutating func jump(to target: UInt) -> Int {
        byte(0xE9)
        let place = count
        little(Int32(truncatingIfNeeded: Int(bitPattern: target &- (code &+ UInt(place) &+ 4))))
        return place
    }
}
