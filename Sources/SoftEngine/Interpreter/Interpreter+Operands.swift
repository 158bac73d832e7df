import CDavit
import Synchronization
import X86

/// Held while a locked instruction works on memory that no host instruction reaches atomically: devices, and operands
/// across cache lines or pages.
private let splitLock = Mutex<Void>(())

// Operands of integer instructions, in the letters of `OperandForm`.
extension Interpreter {
    /// E: ModRM.rm, register or memory.
    @inline(__always)
    func readE(_ instruction: borrowing Instruction, size: UInt8) throws(GuestFault) -> UInt64 {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: false)
            return try load(linear: linear, size: size)
        }
        return readRegister(instruction.rm, size: size, rex: instruction.prefixes.contains(.rex))
    }

    @inline(__always)
    func writeE(_ instruction: borrowing Instruction, size: UInt8, _ value: UInt64) throws(GuestFault) {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: true)
            try store(value, linear: linear, size: size)
        } else {
            writeRegister(instruction.rm, size: size, rex: instruction.prefixes.contains(.rex), value)
        }
    }

    /// G: ModRM.reg; also Z, the register in the opcode.
    @inline(__always)
    func readG(_ instruction: borrowing Instruction, size: UInt8) -> UInt64 {
        readRegister(instruction.reg, size: size, rex: instruction.prefixes.contains(.rex))
    }

    @inline(__always)
    func writeG(_ instruction: borrowing Instruction, size: UInt8, _ value: UInt64) {
        writeRegister(instruction.reg, size: size, rex: instruction.prefixes.contains(.rex), value)
    }

    /// Writes CF PF AF ZF SF OF.
    @inline(__always)
    func setArithmeticFlags(_ flags: UInt64) {
        cpu.pointee.rflags = cpu.pointee.rflags & ~RFLAGS.arithmetic | flags
    }

    /// Sets or clears one flag.
    @inline(__always)
    func setFlag(_ flag: UInt64, _ value: Bool) {
        cpu.pointee.rflags = value ? cpu.pointee.rflags | flag : cpu.pointee.rflags & ~flag
    }

    /// Reads E, computes, writes E back and then the flags. Write access comes first, and LOCK is honoured.
    @inline(__always)
    func modifyE(
        _ instruction: borrowing Instruction, size: UInt8, _ compute: (UInt64) -> davit_result
    ) throws(GuestFault) {
        if instruction.isMemory {
            let linear = try operandAddress(instruction, size: UInt64(size), write: true)
            _ = try modify(linear: linear, size: size, locked: instruction.prefixes.contains(.lock), compute)
        } else {
            let rex = instruction.prefixes.contains(.rex)
            let result = compute(readRegister(instruction.rm, size: size, rex: rex))
            writeRegister(instruction.rm, size: size, rex: rex, result.value)
            setArithmeticFlags(result.flags)
        }
    }

    /// Reads memory, computes, writes it back, then writes the flags. Returns what was there.
    @inline(__always)
    func modify(
        linear: UInt64, size: UInt8, locked: Bool, _ compute: (UInt64) -> davit_result
    ) throws(GuestFault) -> UInt64 {
        guard let place = try hostPointerForWrite(linear: linear, size: Int(size)),
            !(locked && Self.crossesLine(place, size: size))
        else {
            return try modifySlowly(linear: linear, size: size, locked: locked, compute)
        }
        var old = Self.hostLoad(place, size: size)
        var result = compute(old)
        if locked {
            while true {
                let found = davit_compare_exchange(place, old, result.value, UInt32(size))
                if found == old { break }
                old = found
                result = compute(old)
            }
        } else {
            Self.hostStore(place, size: size, result.value)
        }
        setArithmeticFlags(result.flags)
        return old
    }

    /// `modify` by way of `load` and `store`, which no longer fault: write access is granted.
    @inline(never)
    private func modifySlowly(
        linear: UInt64, size: UInt8, locked: Bool, _ compute: (UInt64) -> davit_result
    ) throws(GuestFault) -> UInt64 {
        guard locked else {
            let old = try load(linear: linear, size: size)
            let result = compute(old)
            try store(result.value, linear: linear, size: size)
            setArithmeticFlags(result.flags)
            return old
        }
        return try splitLocked { () throws(GuestFault) in
            try modifySlowly(linear: linear, size: size, locked: false, compute)
        }
    }

    /// Runs `body` under the lock for locked instructions without a host instruction to match.
    func splitLocked(_ body: () throws(GuestFault) -> UInt64) throws(GuestFault) -> UInt64 {
        var fault: GuestFault?
        let value = splitLock.withLock { _ in
            do throws(GuestFault) {
                return try body()
            } catch {
                fault = error
                return 0
            }
        }
        if let fault { throw fault }
        return value
    }

    /// The operand lies in two cache lines: hosts may slow down or kill a process that locks such.
    @inline(__always)
    static func crossesLine(_ place: UnsafeMutableRawPointer, size: UInt8) -> Bool {
        UInt(bitPattern: place) & 63 &+ UInt(size) > 64
    }

    /// Reads 1, 2, 4 or 8 bytes at a place that the MMU has granted.
    @inline(__always)
    static func hostLoad(_ place: UnsafeRawPointer, size: UInt8) -> UInt64 {
        // Safe: the caller holds a pointer to `size` bytes of guest RAM, of any alignment.
        switch size {
        case 8: return place.loadUnaligned(as: UInt64.self)
        case 4: return UInt64(place.loadUnaligned(as: UInt32.self))
        case 2: return UInt64(place.loadUnaligned(as: UInt16.self))
        default: return UInt64(place.load(as: UInt8.self))
        }
    }

    @inline(__always)
    static func hostStore(_ place: UnsafeMutableRawPointer, size: UInt8, _ value: UInt64) {
        // Safe: as in `hostLoad`, with write access.
        switch size {
        case 8: place.storeBytes(of: value, as: UInt64.self)
        case 4: place.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
        case 2: place.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
        default: place.storeBytes(of: UInt8(truncatingIfNeeded: value), as: UInt8.self)
        }
    }
}
