import CDavit
import X86

// SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS (Intel SDM vol. 2; AMD APM vol. 3). The vendors differ outside 64-bit mode, and in what
// SYSRET checks.
extension Interpreter {
    private static let flatCode32: UInt16 = 0xC09B
    private static let flatCode64: UInt16 = 0xA09B
    private static let flatData: UInt16 = 0xC093
    /// DPL 3 in the attributes.
    private static let user: UInt16 = 0x60

    private func setFlat(code: UInt16, stack: UInt16, codeAttributes: UInt16, dataAttributes: UInt16, cpl: UInt32) {
        segments[Int(DAVIT_SS.rawValue)] = Self.flat(stack, dataAttributes)
        setCodeSegment(Self.flat(code, codeAttributes), cpl: cpl)
    }

    /// To be called when STAR, SFMASK or EFER has changed: prepares what SYSCALL and SYSRET do in translated code. They are left to the
    /// interpreter unless SYSCALL clears the arithmetic flags, as it does under every kernel that clears all it can.
    func updateFastCalls() {
        let cleared = RFLAGS.arithmetic | RFLAGS.TF | RFLAGS.AC | RFLAGS.RF
        // A processor that stands in for another engine's has to notice where the guest goes to user mode.
        let isFast =
            !system.pointee.standsIn && cpu.pointee.efer & EFER.SCE != 0
            && (cpu.pointee.sfmask | RFLAGS.RF) & cleared == cleared
        cpu.pointee.slow_calls = isFast ? 0 : 1
        cpu.pointee.call_flags = ~(cpu.pointee.sfmask | RFLAGS.RF)
        let callSelector = UInt16(truncatingIfNeeded: cpu.pointee.star >> 32) & 0xFFFC
        let returnSelector = UInt16(truncatingIfNeeded: cpu.pointee.star >> 48)
        let segments = davit_cpu_call_segment(cpu)
        segments[0] = Self.flat(callSelector, Self.flatCode64)
        segments[1] = Self.flat(callSelector &+ 8, Self.flatData)
        segments[2] = Self.flat((returnSelector &+ 16) | 3, Self.flatCode64 | Self.user)
        segments[3] = Self.flat((returnSelector &+ 8) | 3, Self.flatData | Self.user)
    }

    private static func flat(_ selector: UInt16, _ attributes: UInt16) -> davit_segment {
        davit_segment(base: 0, limit: UInt32.max, selector: selector, attributes: attributes)
    }

    func systemCall() throws(GuestFault) {
        guard cpu.pointee.efer & EFER.SCE != 0, isProtected, isAMD || is64Bit else { throw .invalidOpcode }
        let selector = UInt16(truncatingIfNeeded: cpu.pointee.star >> 32) & 0xFFFC
        var flags = cpu.pointee.rflags & ~RFLAGS.RF
        gpr[GeneralRegister.RCX] = cpu.pointee.next_rip
        if isLong {
            gpr[11] = flags
            cpu.pointee.next_rip = is64Bit ? cpu.pointee.lstar : cpu.pointee.cstar
            flags &= ~cpu.pointee.sfmask
        } else {
            cpu.pointee.next_rip = cpu.pointee.star & 0xFFFF_FFFF
            flags &= ~(RFLAGS.VM | RFLAGS.IF)
        }
        setFlags(flags | RFLAGS.reserved1)
        setFlat(
            code: selector, stack: selector &+ 8, codeAttributes: isLong ? Self.flatCode64 : Self.flatCode32,
            dataAttributes: Self.flatData, cpl: 0)
    }

    func systemReturn(size: UInt8) throws(GuestFault) {
        guard cpu.pointee.efer & EFER.SCE != 0, isProtected, isAMD || is64Bit else { throw .invalidOpcode }
        guard cpu.pointee.cpl == 0 else { throw .generalProtection }
        let star = UInt16(truncatingIfNeeded: cpu.pointee.star >> 48)
        let isTo64Bit = is64Bit && size == 8
        let rip = isTo64Bit ? gpr[GeneralRegister.RCX] : gpr[GeneralRegister.RCX] & 0xFFFF_FFFF
        // AMD's CPUs notice a bad address only at the fetch, with the user's rights.
        if isTo64Bit && !isAMD && !Self.isCanonical(rip) { throw .generalProtection }
        cpu.pointee.next_rip = rip
        let flags =
            isLong ? gpr[11] & 0x3C_7FD7 | RFLAGS.reserved1 : cpu.pointee.rflags | RFLAGS.IF
        setFlat(
            code: (star &+ (isTo64Bit ? 16 : 0)) | 3, stack: (star &+ 8) | 3,
            codeAttributes: (isTo64Bit ? Self.flatCode64 : Self.flatCode32) | Self.user,
            dataAttributes: Self.flatData | Self.user, cpl: 3)
        setFlags(flags)
        if flags & RFLAGS.TF != 0 { system.pointee.debugTraps |= DR6.BS }
    }

    func systemEnter() throws(GuestFault) {
        if isAMD && isLong { throw .invalidOpcode }
        guard isProtected, cpu.pointee.sysenter_cs & 0xFFFC != 0 else { throw .generalProtection }
        let selector = UInt16(truncatingIfNeeded: cpu.pointee.sysenter_cs) & 0xFFFC
        let mask = isLong ? UInt64.max : 0xFFFF_FFFF
        gpr[GeneralRegister.RSP] = cpu.pointee.sysenter_esp & mask
        cpu.pointee.next_rip = cpu.pointee.sysenter_eip & mask
        setFlags(cpu.pointee.rflags & ~(RFLAGS.VM | RFLAGS.IF))
        setFlat(
            code: selector, stack: selector &+ 8, codeAttributes: isLong ? Self.flatCode64 : Self.flatCode32,
            dataAttributes: Self.flatData, cpl: 0)
    }

    func systemExit(size: UInt8) throws(GuestFault) {
        guard isProtected, cpu.pointee.cpl == 0 else { throw .generalProtection }
        if isAMD && isLong { throw .invalidOpcode }
        guard cpu.pointee.sysenter_cs & 0xFFFC != 0 else { throw .generalProtection }
        let isTo64Bit = size == 8
        let rip = gpr[GeneralRegister.RDX]
        let rsp = gpr[GeneralRegister.RCX]
        if isTo64Bit && !(Self.isCanonical(rip) && Self.isCanonical(rsp)) { throw .generalProtection }
        let selector = (UInt16(truncatingIfNeeded: cpu.pointee.sysenter_cs) &+ (isTo64Bit ? 32 : 16)) | 3
        cpu.pointee.next_rip = isTo64Bit ? rip : rip & 0xFFFF_FFFF
        gpr[GeneralRegister.RSP] = isTo64Bit ? rsp : rsp & 0xFFFF_FFFF
        setFlat(
            code: selector, stack: (selector &+ 8) | 3,
            codeAttributes: (isTo64Bit ? Self.flatCode64 : Self.flatCode32) | Self.user,
            dataAttributes: Self.flatData | Self.user, cpl: 3)
    }

    func swapGS() throws(GuestFault) {
        guard is64Bit else { throw .invalidOpcode }
        guard cpu.pointee.cpl == 0 else { throw .generalProtection }
        let base = segments[Int(DAVIT_GS.rawValue)].base
        segments[Int(DAVIT_GS.rawValue)].base = cpu.pointee.kernel_gs_base
        cpu.pointee.kernel_gs_base = base
    }
}
