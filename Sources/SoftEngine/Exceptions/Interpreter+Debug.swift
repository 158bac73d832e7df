import CDavit
import X86

/// Bits of DR6 and DR7 (Intel SDM vol. 3, 18.2).
enum DR6 {
    static let BD: UInt64 = 1 << 13
    static let BS: UInt64 = 1 << 14
    static let BT: UInt64 = 1 << 15
    /// Bits that always read as one.
    static let fixed: UInt64 = 0xFFFF_0FF0
}

enum DR7 {
    static let GD: UInt64 = 1 << 13
    static let fixed: UInt64 = 0x400
    static let writable: UInt64 = 0xFFFF_2BFF
    /// L0 G0 ... L3 G3.
    static let enables: UInt64 = 0xFF
}

// Single step and hardware breakpoints. While any is armed the run loop steps, and data accesses take the slow path.
extension Interpreter {
    enum BreakpointKind: UInt64 {
        case execute = 0
        case write = 1
        case io = 2
        case access = 3
    }

    /// To be called when DR7 or CR4.DE has changed.
    func updateBreakpoints() {
        let dr7 = davit_cpu_dr(cpu)[7]
        system.pointee.breakpoints = dr7 & DR7.enables
        var watches = !debugger.request.watchpoints.isEmpty
        for i in 0..<4 where isEnabled(i) {
            if kind(i) != .execute { watches = true }
        }
        system.pointee.watchesData = watches
        if system.pointee.breakpoints != 0 || system.pointee.isDebugged {
            davit_cpu_request(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
        }
        updateMode()
        system.pointee.blockEnd = 0
    }

    @inline(__always)
    private func isEnabled(_ i: Int) -> Bool { davit_cpu_dr(cpu)[7] >> UInt64(i &* 2) & 3 != 0 }

    private func kind(_ i: Int) -> BreakpointKind {
        BreakpointKind(rawValue: davit_cpu_dr(cpu)[7] >> UInt64(16 &+ i &* 4) & 3).unsafelyUnwrapped
    }

    private func length(_ i: Int) -> UInt64 {
        switch davit_cpu_dr(cpu)[7] >> UInt64(18 &+ i &* 4) & 3 {
        case 0: return 1
        case 1: return 2
        case 2: return 8
        default: return 4
        }
    }

    /// DR6 bits of the instruction breakpoints at a linear address.
    func instructionBreakpoints(at linear: UInt64) -> UInt64 {
        guard system.pointee.breakpoints != 0 else { return 0 }
        var hits: UInt64 = 0
        for i in 0..<4 where isEnabled(i) && kind(i) == .execute && davit_cpu_dr(cpu)[i] == linear {
            hits |= 1 << UInt64(i)
        }
        return hits
    }

    /// Notes the data breakpoints that an access meets; the trap comes after the instruction.
    func noteDataBreakpoints(linear: UInt64, size: UInt64, write: Bool) {
        for i in 0..<4 where isEnabled(i) {
            let kind = kind(i)
            guard kind == .access || kind == .write && write else { continue }
            noteBreakpoint(i, start: linear, size: size)
        }
        if system.pointee.isDebugged { debugger.note(linear: linear, size: size, isWrite: write) }
    }

    func notePortBreakpoints(port: UInt16, size: UInt8) {
        guard system.pointee.watchesData, cpu.pointee.cr4 & CR4.DE != 0 else { return }
        for i in 0..<4 where isEnabled(i) && kind(i) == .io {
            noteBreakpoint(i, start: UInt64(port), size: UInt64(size))
        }
    }

    private func noteBreakpoint(_ i: Int, start: UInt64, size: UInt64) {
        let length = length(i)
        let watched = davit_cpu_dr(cpu)[i] & ~(length &- 1)
        if start < watched &+ length && watched < start &+ size { system.pointee.debugTraps |= 1 << UInt64(i) }
    }

    /// A debug trap after the current instruction.
    func raiseDebugTrap(_ bits: UInt64) {
        system.pointee.debugTraps |= bits
        system.pointee.blockEnd = 0
        davit_cpu_request(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
    }

    /// #DB as a fault, DR6 saying why.
    func debugFault(_ bits: UInt64) -> GuestFault {
        davit_cpu_dr(cpu)[6] = davit_cpu_dr(cpu)[6] & ~0xF | bits
        davit_cpu_dr(cpu)[7] &= ~DR7.GD
        return GuestFault(.DB)
    }

    func readDebugRegister(_ number: UInt8) throws(GuestFault) -> UInt64 {
        davit_cpu_dr(cpu)[try debugRegister(number)]
    }

    func writeDebugRegister(_ number: UInt8, _ value: UInt64) throws(GuestFault) {
        let n = try debugRegister(number)
        switch n {
        case 6:
            guard value >> 32 == 0 else { throw .generalProtection }
            davit_cpu_dr(cpu)[6] = DR6.fixed | value & 0xE00F
        case 7:
            guard value >> 32 == 0 else { throw .generalProtection }
            davit_cpu_dr(cpu)[7] = DR7.fixed | value & DR7.writable
            updateBreakpoints()
        default:
            davit_cpu_dr(cpu)[n] = value
            updateBreakpoints()
        }
    }

    /// DR4 and DR5 are DR6 and DR7 unless CR4.DE makes them undefined. With DR7.GD any access traps.
    private func debugRegister(_ number: UInt8) throws(GuestFault) -> Int {
        var n = Int(number & 7)
        if n == 4 || n == 5 {
            if cpu.pointee.cr4 & CR4.DE != 0 { throw .invalidOpcode }
            n &+= 2
        }
        guard cpu.pointee.cpl == 0 else { throw .generalProtection }
        if davit_cpu_dr(cpu)[7] & DR7.GD != 0 { throw debugFault(DR6.BD) }
        return n
    }
}
