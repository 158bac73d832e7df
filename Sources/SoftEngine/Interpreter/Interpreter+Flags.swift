import CDavit
import X86

extension Interpreter {
    @inline(always) var isProtected: Bool { cpu.pointee.cr0 & CR0.PE != 0 }
    /// IA-32e mode: 64-bit or compatibility.
    @inline(always) var isLong: Bool { cpu.pointee.efer & EFER.LMA != 0 }
    @inline(always) var isVirtual8086: Bool { cpu.pointee.rflags & RFLAGS.VM != 0 }
    @inline(always) var iopl: UInt32 { UInt32(truncatingIfNeeded: cpu.pointee.rflags >> 12 & 3) }

    /// Sets RFLAGS with everything that hangs on it: TF and RF ask for single steps, AC chooses the TLB, IF lets waiting interrupts in.
    /// The caller has merged what the instruction may not change. For POPF, IRET, STI and their like; arithmetic writes
    /// `cpu.rflags` itself.
    func setFlags(_ value: UInt64) {
        let changed = cpu.pointee.rflags ^ value
        cpu.pointee.rflags = value
        if changed & RFLAGS.AC != 0 { updateMode() }
        if value & (RFLAGS.TF | RFLAGS.RF) != 0 {
            davit_cpu_request(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
            system.pointee.blockEnd = 0
        }
        if changed & value & RFLAGS.IF != 0 {
            // Interrupts that waited for IF are looked at when the current block, which this instruction ends, is done.
            if cpu.pointee.interrupt_waits != 0 { davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue) }
            system.pointee.blockEnd = 0
        }
    }

    /// IN, OUT, INS and OUTS may use `size` ports from `port` on: by IOPL, else by the task's bitmap (SDM vol. 1, 19.5).
    /// Throws #GP(0).
    func checkIOPermission(port: UInt16, size: UInt8) throws(GuestFault) {
        if system.pointee.standsIn { try declinePort(port, size: size) }
        guard isProtected, isVirtual8086 || cpu.pointee.cpl > iopl else {
            return notePortBreakpoints(port: port, size: size)
        }
        let task = segments[Int(DAVIT_TR.rawValue)]
        // A 32- or 64-bit TSS, available or busy, that reaches to the bitmap's offset at 102.
        guard task.isPresent, task.type & ~2 == 9, task.limit >= 103 else { throw .generalProtection }
        let bitmap = try systemLoad(linear: task.base &+ 102, size: 2)
        let offset = bitmap &+ UInt64(port >> 3)
        // Two bytes are always read, so that an access may straddle them.
        guard offset &+ 1 <= UInt64(task.limit) else { throw .generalProtection }
        let bits = try systemLoad(linear: task.base &+ offset, size: 2) >> UInt64(port & 7)
        guard bits & (1 << UInt64(size) &- 1) == 0 else { throw .generalProtection }
        notePortBreakpoints(port: port, size: size)
    }
}
