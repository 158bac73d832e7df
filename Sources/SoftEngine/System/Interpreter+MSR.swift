import CDavit
import X86

/// Numbers of the MSRs with an effect (Intel SDM vol. 4, table 2-2; AMD APM vol. 2, appendix A).
enum MSR {
    static let TSC: UInt32 = 0x10
    static let APIC_BASE: UInt32 = 0x1B
    static let TSC_ADJUST: UInt32 = 0x3B
    static let SYSENTER_CS: UInt32 = 0x174
    static let SYSENTER_ESP: UInt32 = 0x175
    static let SYSENTER_EIP: UInt32 = 0x176
    static let MISC_ENABLE: UInt32 = 0x1A0
    static let PAT: UInt32 = 0x277
    static let TSC_DEADLINE: UInt32 = 0x6E0
    static let x2APIC: ClosedRange<UInt32> = 0x800...0x8FF
    static let EFER: UInt32 = 0xC000_0080
    static let STAR: UInt32 = 0xC000_0081
    static let LSTAR: UInt32 = 0xC000_0082
    static let CSTAR: UInt32 = 0xC000_0083
    static let SFMASK: UInt32 = 0xC000_0084
    static let FS_BASE: UInt32 = 0xC000_0100
    static let GS_BASE: UInt32 = 0xC000_0101
    static let KERNEL_GS_BASE: UInt32 = 0xC000_0102
    static let TSC_AUX: UInt32 = 0xC000_0103
}

extension Interpreter {
    /// #GP for a number that is not known.
    func readMSR(_ number: UInt32) throws(GuestFault) -> UInt64 {
        try declineMSR(number)
        switch number {
        case MSR.TSC: return guestTSC
        case MSR.APIC_BASE: return cpu.pointee.apic_base
        case MSR.TSC_ADJUST: return system.pointee.tscAdjust
        case MSR.SYSENTER_CS: return cpu.pointee.sysenter_cs
        case MSR.SYSENTER_ESP: return cpu.pointee.sysenter_esp
        case MSR.SYSENTER_EIP: return cpu.pointee.sysenter_eip
        case MSR.MISC_ENABLE where !isAMD: return cpu.pointee.misc_enable
        case MSR.PAT: return cpu.pointee.pat
        case MSR.TSC_DEADLINE:
            guard let apic else { throw .generalProtection }
            return apic.tscDeadline
        case MSR.x2APIC:
            guard let apic else { throw .generalProtection }
            settleEndOfInterrupt()
            return try apic.readMSR(number)
        case MSR.EFER: return cpu.pointee.efer
        case MSR.STAR: return cpu.pointee.star
        case MSR.LSTAR: return cpu.pointee.lstar
        case MSR.CSTAR: return cpu.pointee.cstar
        case MSR.SFMASK: return cpu.pointee.sfmask
        case MSR.FS_BASE: return segments[Int(DAVIT_FS.rawValue)].base
        case MSR.GS_BASE: return segments[Int(DAVIT_GS.rawValue)].base
        case MSR.KERNEL_GS_BASE: return cpu.pointee.kernel_gs_base
        case MSR.TSC_AUX: return cpu.pointee.tsc_aux
        case KVMInterface.systemTimeMSR: return system.pointee.kvmSystemTime
        case KVMInterface.wallClockMSR: return system.pointee.kvmWallClock
        case KVMInterface.stealTimeMSR: return system.pointee.stealTimePlace
        case KVMInterface.endOfInterruptMSR: return system.pointee.endOfInterruptPlace
        default:
            guard let slot = storedMSR(number) else { throw .generalProtection }
            return storedValues[slot]
        }
    }

    /// #GP for a number that is not known or a value that the register cannot take.
    func writeMSR(_ number: UInt32, _ value: UInt64) throws(GuestFault) {
        try declineMSR(number)
        switch number {
        case MSR.TSC:
            let offset = value &- davit_rdtsc()
            system.pointee.tscAdjust &+= offset &- cpu.pointee.tsc_offset
            setTSCOffset(offset)
        case MSR.TSC_ADJUST:
            setTSCOffset(cpu.pointee.tsc_offset &+ value &- system.pointee.tscAdjust)
            system.pointee.tscAdjust = value
        case MSR.APIC_BASE: try writeAPICBase(value)
        case MSR.SYSENTER_CS: cpu.pointee.sysenter_cs = value & 0xFFFF_FFFF
        case MSR.SYSENTER_ESP: cpu.pointee.sysenter_esp = try canonical(value)
        case MSR.SYSENTER_EIP: cpu.pointee.sysenter_eip = try canonical(value)
        case MSR.MISC_ENABLE where !isAMD: cpu.pointee.misc_enable = value
        case MSR.PAT: try writePAT(value)
        case MSR.TSC_DEADLINE:
            guard let apic else { throw .generalProtection }
            apic.tscDeadline = value
        case MSR.x2APIC:
            guard let apic else { throw .generalProtection }
            settleEndOfInterrupt()
            try apic.writeMSR(number, value)
        case MSR.EFER: try writeEFER(value)
        case MSR.STAR:
            cpu.pointee.star = value
            updateFastCalls()
        case MSR.LSTAR: cpu.pointee.lstar = try canonical(value)
        case MSR.CSTAR: cpu.pointee.cstar = try canonical(value)
        case MSR.SFMASK:
            cpu.pointee.sfmask = value & 0xFFFF_FFFF
            updateFastCalls()
        case MSR.FS_BASE: segments[Int(DAVIT_FS.rawValue)].base = try canonical(value)
        case MSR.GS_BASE: segments[Int(DAVIT_GS.rawValue)].base = try canonical(value)
        case MSR.KERNEL_GS_BASE: cpu.pointee.kernel_gs_base = try canonical(value)
        case MSR.TSC_AUX:
            guard value >> 32 == 0 else { throw .generalProtection }
            cpu.pointee.tsc_aux = value
        case KVMInterface.systemTimeMSR: try writeSystemTime(value)
        case KVMInterface.stealTimeMSR: try writeStealTimePlace(value)
        case KVMInterface.endOfInterruptMSR: try writeEndOfInterruptPlace(value)
        case KVMInterface.wallClockMSR:
            try writeWallClock(value)
            system.pointee.kvmWallClock = value
        default:
            guard let slot = storedMSR(number) else { throw .generalProtection }
            if storedMSRs[slot].ignoresWrites { return }
            guard value & ~storedMSRs[slot].writable == 0 else { throw .generalProtection }
            storedValues[slot] = value
        }
    }

    private func canonical(_ value: UInt64) throws(GuestFault) -> UInt64 {
        guard Self.isCanonical(value) else { throw .generalProtection }
        return value
    }

    private func storedMSR(_ number: UInt32) -> Int? {
        var low = 0
        var high = storedMSRs.count
        while low < high {
            let middle = (low &+ high) / 2
            if storedMSRs[middle].number < number { low = middle &+ 1 } else { high = middle }
        }
        return low < storedMSRs.count && storedMSRs[low].number == number ? low : nil
    }

    private func writePAT(_ value: UInt64) throws(GuestFault) {
        guard Self.isPAT(value) else { throw .generalProtection }
        cpu.pointee.pat = value
    }

    /// Every byte is a memory type: UC, WC, WT, WP, WB, UC-.
    static func isPAT(_ value: UInt64) -> Bool {
        for entry in 0..<8 {
            let type = value >> UInt64(entry &* 8) & 0xFF
            if type >= 8 || type == 2 || type == 3 { return false }
        }
        return true
    }

    private func writeAPICBase(_ value: UInt64) throws(GuestFault) {
        guard let apic else { throw .generalProtection }
        try apic.writeBase(value, physicalAddressBits: Int(physicalAddressBits))
        didChangeAPICBase()
    }

    /// Takes over what IA32_APIC_BASE now says: where the registers are, if memory-mapped at all.
    func didChangeAPICBase() {
        guard let apic else { return }
        cpu.pointee.apic_base = apic.base
        let page = apic.isEnabled && !apic.isX2APIC ? apic.base & PageEntry.addressMask : UInt64.max
        if page != cpu.pointee.apic_page {
            cpu.pointee.apic_page = page
            flushFirstLevel()
        }
    }

    @inline(__always) var guestTSC: UInt64 { davit_rdtsc() &+ cpu.pointee.tsc_offset }

    func setTSCOffset(_ offset: UInt64) {
        cpu.pointee.tsc_offset = offset
        apic?.setTSCOffset(offset)
        if system.pointee.kvmSystemTime & 1 != 0 { publishSystemTime() }
    }

    /// CR8.
    func readTaskPriority() -> UInt64 { apic?.cr8 ?? 0 }
    func writeTaskPriority(_ value: UInt64) {
        settleEndOfInterrupt()
        apic?.cr8 = value
    }
}
