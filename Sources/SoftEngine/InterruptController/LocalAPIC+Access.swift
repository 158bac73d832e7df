// Register access by the vCPU: the xAPIC page (Intel SDM vol. 3, 11.4.1), the x2APIC MSRs (11.12.1.2) and IA32_APIC_BASE.

import MachineModel

extension LocalAPIC {
    // MARK: IA32_APIC_BASE

    /// Writes IA32_APIC_BASE. #GP for a reserved bit or a change of mode that figure 11-27 does not have: x2APIC is entered from xAPIC
    /// mode and left by disabling only. A disabled APIC that is enabled again is as after INIT.
    func writeBase(_ value: UInt64, physicalAddressBits: Int) throws(GuestFault) {
        let reserved = UInt64.max << UInt64(truncatingIfNeeded: physicalAddressBits) | 0x2FF
        guard value & reserved == 0 else { throw .generalProtection }
        let old = base & (APICBase.EN | APICBase.EXTD)
        let new = value & (APICBase.EN | APICBase.EXTD)
        let x2APIC = APICBase.EN | APICBase.EXTD
        if new == APICBase.EXTD || (old == 0 && new == x2APIC) || (old == x2APIC && new == APICBase.EN) {
            throw .generalProtection
        }
        setBase(value)
        if old != 0, new == 0 { initialize() }
        wakeIfInterruptWaits()
    }

    // MARK: xAPIC page

    /// `offset` counts from the page's start. Only the 32-bit access to a register's first four bytes is architectural; a narrower read
    /// gets its part of them, everything between registers reads zero.
    func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        let byte = offset & 15
        guard byte < 4, offset < 4096 else { return 0 }
        let register = Int(truncatingIfNeeded: offset >> 4)
        guard Self.isReadable(register) || register == APICRegister.DFR || register == APICRegister.ICRHigh else {
            if register != APICRegister.EOI { report(APICESR.illegalRegister) }
            return 0
        }
        return UInt64(read(register) >> UInt32(byte &* 8)) & width.mask
    }

    /// Anything but an aligned write of four bytes or more is dropped.
    func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard offset & 15 == 0, offset < 4096, width.bytes >= 4 else { return }
        let register = Int(truncatingIfNeeded: offset >> 4)
        let value = UInt32(truncatingIfNeeded: value)
        switch register {
        case APICRegister.LDR: registers[register] = value & 0xFF00_0000
        case APICRegister.DFR: registers[register] = value | 0x0FFF_FFFF
        case APICRegister.ICRHigh: registers[register] = value & 0xFF00_0000
        case APICRegister.ICR:
            registers[register] = value & APICICR.writable
            sendIPI(value & APICICR.writable, destination: registers[APICRegister.ICRHigh] >> 24)
        // Read-only here: IDs are the machine's to give.
        case APICRegister.ID, APICRegister.version: break
        case APICRegister.SVR: writeSVR(value & APICSVR.writable)
        case APICRegister.LVTTimer...APICRegister.LVTError: writeLVT(register, value & APICLVT.writable(register))
        default: if !writeShared(register, value) { report(APICESR.illegalRegister) }
        }
    }

    // MARK: x2APIC MSRs

    /// `msr` is 0x800-0x8FF. #GP outside x2APIC mode and for registers that are not there or only written.
    func readMSR(_ msr: UInt32) throws(GuestFault) -> UInt64 {
        let register = Int(msr & 0xFF)
        guard isX2APIC, Self.isReadable(register) else { throw .generalProtection }
        let value = UInt64(read(register))
        // In x2APIC mode ICR is one register of 64 bits.
        return register == APICRegister.ICR ? value | UInt64(registers[APICRegister.ICRHigh]) << 32 : value
    }

    /// #GP for reserved bits too (11.12.1.3).
    func writeMSR(_ msr: UInt32, _ value: UInt64) throws(GuestFault) {
        let register = Int(msr & 0xFF)
        guard isX2APIC else { throw .generalProtection }
        let low = UInt32(truncatingIfNeeded: value)
        if register == APICRegister.ICR {
            guard low & APICICR.reservedInX2APIC == 0 else { throw .generalProtection }
            let icr = low & APICICR.writable
            let destination = UInt32(truncatingIfNeeded: value >> 32)
            registers[register] = icr
            registers[APICRegister.ICRHigh] = destination
            return sendIPI(icr, destination: destination)
        }
        guard value >> 32 == 0 else { throw .generalProtection }
        switch register {
        case APICRegister.TPR:
            guard low >> 8 == 0 else { throw .generalProtection }
        case APICRegister.EOI, APICRegister.ESR:
            guard low == 0 else { throw .generalProtection }
        case APICRegister.SVR:
            guard low & ~APICSVR.writable == 0 else { throw .generalProtection }
            return writeSVR(low)
        case APICRegister.LVTTimer...APICRegister.LVTError:
            // Delivery status and remote IRR are read-only, not reserved.
            guard low & ~(APICLVT.writable(register) | 1 << 12 | 1 << 14) == 0 else { throw .generalProtection }
            return writeLVT(register, low & APICLVT.writable(register))
        case APICRegister.divideConfiguration:
            guard low & ~0xB == 0 else { throw .generalProtection }
        case APICRegister.selfIPI:
            guard low >> 8 == 0 else { throw .generalProtection }
            return sendIPI(low | 1 << 18, destination: 0)
        default: break
        }
        guard writeShared(register, low) else { throw .generalProtection }
    }

    // MARK: both

    /// Readable in both modes.
    private static func isReadable(_ register: Int) -> Bool {
        switch register {
        case APICRegister.ID, APICRegister.version, APICRegister.TPR, APICRegister.PPR, APICRegister.LDR,
            APICRegister.SVR,
            APICRegister.ISR...APICRegister.ESR, APICRegister.ICR, APICRegister.LVTTimer...APICRegister.LVTError,
            APICRegister.initialCount, APICRegister.currentCount, APICRegister.divideConfiguration:
            true
        default: false
        }
    }

    private func read(_ register: Int) -> UInt32 {
        register == APICRegister.currentCount ? readCurrentCount() : registers[register]
    }

    /// Registers that both modes write alike; false if this is none.
    private func writeShared(_ register: Int, _ value: UInt32) -> Bool {
        switch register {
        case APICRegister.TPR: writeTPR(value)
        case APICRegister.EOI: endOfInterrupt()
        case APICRegister.ESR: latchErrors()
        case APICRegister.initialCount: writeInitialCount(value)
        case APICRegister.divideConfiguration: writeDivideConfiguration(value & 0xB)
        default: return false
        }
        return true
    }

    private func writeSVR(_ value: UInt32) {
        registers[APICRegister.SVR] = value
        guard value & APICSVR.enable == 0 else { return }
        // Disabling masks every LVT entry (11.4.7.2), and they stay so until it is enabled again.
        for entry in APICRegister.LVTTimer...APICRegister.LVTError {
            writeLVT(entry, registers[entry])
        }
    }

    private func writeLVT(_ register: Int, _ value: UInt32) {
        let value = registers[APICRegister.SVR] & APICSVR.enable == 0 ? value | APICLVT.masked : value
        if register == APICRegister.LVTTimer { return writeTimerLVT(value) }
        registers[register] = value
        // An unmasked LINT0 may let the 8259 through.
        if register == APICRegister.LVTLINT0 { wakeIfInterruptWaits() }
    }
}
