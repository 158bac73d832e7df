import CDavit
import X86

/// A stack that a transfer pushes to or pops from before it is committed: registers change only when nothing can fault any more.
struct StagedStack: BitwiseCopyable {
    var segment: davit_segment
    /// RSP, addressing part.
    var pointer: UInt64
    /// Bits of RSP that address the stack.
    var mask: UInt64
    /// Rights of the accesses (enum davit_tlb_mode).
    var mode: UInt32
    /// Selector for the error code of #SS: an inner stack's own, 0 for the current one.
    var selector: UInt16
}

extension Interpreter {
    /// The stack in use.
    func currentStack() -> StagedStack {
        let mask = stackMask
        return StagedStack(
            segment: segments[Int(DAVIT_SS.rawValue)], pointer: gpr[GeneralRegister.RSP] & mask, mask: mask,
            mode: cpu.pointee.tlb_mode, selector: 0)
    }

    /// Another stack, for privilege level `cpl`.
    func stack(
        _ segment: davit_segment, pointer: UInt64, cpl: UInt32, is64Bit: Bool, selector: UInt16 = 0
    ) -> StagedStack {
        let isBig = segment.attributes & SegmentAttributes.big != 0
        let mask: UInt64 = is64Bit ? UInt64.max : isBig ? 0xFFFF_FFFF : 0xFFFF
        let hasAC = cpu.pointee.rflags & RFLAGS.AC != 0
        let mode =
            cpl == 3 ? DAVIT_TLB_USER.rawValue : hasAC ? DAVIT_TLB_KERNEL_AC.rawValue : systemMode
        return StagedStack(segment: segment, pointer: pointer & mask, mask: mask, mode: mode, selector: selector)
    }

    /// Pushes `size` bytes (2, 4 or 8).
    func push(_ value: UInt64, size: UInt64, on stack: inout StagedStack) throws(GuestFault) {
        let pointer = (stack.pointer &- size) & stack.mask
        let linear = try address(pointer, size: size, in: stack, write: true)
        try store(
            value, linear: linear, size: Int(size), mode: stack.mode, checkAlignment: checksAlignment(of: stack))
        stack.pointer = pointer
    }

    func pop(size: UInt64, from stack: inout StagedStack) throws(GuestFault) -> UInt64 {
        let linear = try address(stack.pointer, size: size, in: stack, write: false)
        let value = try load(
            linear: linear, size: Int(size), mode: stack.mode, checkAlignment: checksAlignment(of: stack))
        stack.pointer = (stack.pointer &+ size) & stack.mask
        return value
    }

    /// #AC is for accesses with the user's rights alone.
    private func checksAlignment(of stack: StagedStack) -> Bool {
        system.pointee.checksAlignment && stack.mode == DAVIT_TLB_USER.rawValue
    }

    private func address(
        _ offset: UInt64, size: UInt64, in stack: StagedStack, write: Bool
    ) throws(GuestFault) -> UInt64 {
        if stack.mask == UInt64.max {
            guard Self.isCanonical(offset) else { throw fault(.SS) }
            return offset
        }
        let isUsable = !isProtected || isVirtual8086 || stack.segment.isPresent
        guard isUsable, stack.segment.contains(offset: offset, size: size) else {
            throw fault(.SS, selector: stack.selector)
        }
        return (stack.segment.base &+ offset) & 0xFFFF_FFFF
    }

    /// Makes the staged pointer RSP; the rest of RSP stays where the stack is narrower.
    func commitPointer(_ stack: StagedStack) {
        let kept = stack.mask == 0xFFFF ? gpr[GeneralRegister.RSP] & ~0xFFFF : 0
        gpr[GeneralRegister.RSP] = kept | stack.pointer
    }
}
