import CDavit
import X86

// The stack as PUSH and POP see it (SDM vol. 1, 6.2). Its address size comes from SS.B, or is 64 bits in 64-bit mode;
// a narrower stack wraps inside its size and leaves the upper part of RSP alone.
extension Interpreter {
    /// The bits of RSP that address the stack.
    @inline(__always) var stackMask: UInt64 {
        if is64Bit { return UInt64.max }
        return segments[Int(DAVIT_SS.rawValue)].attributes & 1 << 14 != 0 ? 0xFFFF_FFFF : 0xFFFF
    }

    /// RSP's addressing part.
    @inline(__always) var stackPointer: UInt64 { gpr[GeneralRegister.RSP] & stackMask }

    /// Writes RSP's addressing part: a 32-bit one clears the upper half as any 32-bit write does, a 16-bit one keeps the rest.
    @inline(__always)
    func setStackPointer(_ value: UInt64) {
        let mask = stackMask
        let kept = mask == 0xFFFF ? gpr[GeneralRegister.RSP] & ~0xFFFF : 0
        gpr[GeneralRegister.RSP] = kept | value & mask
    }

    /// Pushes the low `size` bytes (2, 4 or 8) of `value`. RSP moves only once the bytes are written.
    @inline(__always)
    func push(_ value: UInt64, size: UInt8) throws(GuestFault) {
        let pointer = (gpr[GeneralRegister.RSP] &- UInt64(size)) & stackMask
        try store(value, linear: try stackAddress(pointer, size: size, write: true), size: size)
        setStackPointer(pointer)
    }

    /// Pops `size` bytes (2, 4 or 8). RSP moves only once they are read.
    @inline(__always)
    func pop(size: UInt8) throws(GuestFault) -> UInt64 {
        let value = try load(linear: try stackAddress(stackPointer, size: size, write: false), size: size)
        setStackPointer(stackPointer &+ UInt64(size))
        return value
    }

    /// The linear address of `size` bytes at `offset` in the stack segment; `offset` is wrapped to the stack's width here.
    @inline(__always)
    func stackAddress(_ offset: UInt64, size: UInt8, write: Bool) throws(GuestFault) -> UInt64 {
        try linearAddress(
            segment: UInt8(DAVIT_SS.rawValue), offset: offset & stackMask, size: UInt64(size), write: write)
    }
}
