import CDavit
import X86

// Control registers and EFER: what may be written, and what follows (Intel SDM vol. 3, 2.5, 4.1.2, 4.10.4.1).
extension Interpreter {
    private static let cr0Writable =
        CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG

    func readControlRegister(_ number: UInt8) -> UInt64 {
        switch number {
        case 0: cpu.pointee.cr0
        case 2: cpu.pointee.cr2
        case 3: cpu.pointee.cr3
        case 4: cpu.pointee.cr4
        default: readTaskPriority()
        }
    }

    func writeControlRegister(_ number: UInt8, _ value: UInt64) throws(GuestFault) {
        system.pointee.blockEnd = 0
        switch number {
        case 0: try writeCR0(value)
        case 2: cpu.pointee.cr2 = value
        case 3:
            try writeCR3(value)
        case 4: try writeCR4(value)
        default:
            guard value & ~0xF == 0 else { throw .generalProtection }
            writeTaskPriority(value)
        }
    }

    func writeCR0(_ value: UInt64) throws(GuestFault) {
        guard value >> 32 == 0 else { throw .generalProtection }
        let new = value & Self.cr0Writable | CR0.ET
        if new & CR0.PG != 0 && new & CR0.PE == 0 { throw .generalProtection }
        if new & CR0.NW != 0 && new & CR0.CD == 0 { throw .generalProtection }
        let old = cpu.pointee.cr0
        let changed = old ^ new
        if changed & CR0.PG != 0 { try switchPaging(on: new & CR0.PG != 0) }
        cpu.pointee.cr0 = new
        if changed & (CR0.PG | CR0.WP | CR0.PE) != 0 { flushTLB() }
        if changed & CR0.PE != 0 && new & CR0.PE == 0 { cpu.pointee.cpl = 0 }
        updateCodeSize()
        updateMode()
    }

    /// Checks for, and enters or leaves, long mode as CR0.PG changes.
    private func switchPaging(on: Bool) throws(GuestFault) {
        let cr4 = cpu.pointee.cr4
        guard on else {
            if is64Bit || cr4 & CR4.PCIDE != 0 { throw .generalProtection }
            cpu.pointee.efer &= ~EFER.LMA
            return
        }
        if cpu.pointee.efer & EFER.LME != 0 {
            let isLongCode = segments[Int(DAVIT_CS.rawValue)].attributes & SegmentAttributes.long != 0
            let task = segments[Int(DAVIT_TR.rawValue)]
            let has16BitTask = task.isPresent && task.type & 0x18 == 0 && task.type & 1 != 0
            guard cr4 & CR4.PAE != 0, !isLongCode, !has16BitTask else { throw .generalProtection }
            cpu.pointee.efer |= EFER.LMA
        } else if cr4 & CR4.PAE != 0 {
            try loadPageDirectoryPointers(cr3: cpu.pointee.cr3)
        }
    }

    func writeCR3(_ value: UInt64) throws(GuestFault) {
        var value = value
        let usesPCID = cpu.pointee.cr4 & CR4.PCIDE != 0
        let keeps = usesPCID && value >> 63 != 0
        if usesPCID { value &= ~(1 << 63) }
        if isLong {
            guard value >> physicalAddressBits == 0 else { throw .generalProtection }
        } else {
            value &= 0xFFFF_FFFF
            if cpu.pointee.cr0 & CR0.PG != 0 && cpu.pointee.cr4 & CR4.PAE != 0 {
                try loadPageDirectoryPointers(cr3: value)
            }
        }
        cpu.pointee.cr3 = value
        cpu.pointee.pcid = usesPCID ? value & 0xFFF : 0
        if keeps { flushFirstLevel(keepingGlobal: true) } else { flushTLB(pcid: cpu.pointee.pcid) }
    }

    /// As a task switch loads it.
    func loadCR3(_ value: UInt64) throws(GuestFault) { try writeCR3(value) }

    private func writeCR4(_ value: UInt64) throws(GuestFault) {
        guard value & ~writableCR4 == 0 else { throw .generalProtection }
        let old = cpu.pointee.cr4
        let changed = old ^ value
        if isLong && value & CR4.PAE == 0 { throw .generalProtection }
        if changed & value & CR4.PCIDE != 0 && !(isLong && cpu.pointee.cr3 & 0xFFF == 0) { throw .generalProtection }
        let reloads = CR4.PAE | CR4.PSE | CR4.PGE | CR4.SMEP
        if cpu.pointee.cr0 & CR0.PG != 0 && !isLong && value & CR4.PAE != 0 && changed & reloads != 0 {
            try loadPageDirectoryPointers(cr3: cpu.pointee.cr3)
        }
        cpu.pointee.cr4 = value
        cpu.pointee.pcid = value & CR4.PCIDE != 0 ? cpu.pointee.cr3 & 0xFFF : 0
        if changed & (reloads | CR4.SMAP | CR4.PCIDE) != 0 { flushTLB() }
        updateMode()
        if changed & CR4.DE != 0 { updateBreakpoints() }
    }

    func writeEFER(_ value: UInt64) throws(GuestFault) {
        guard value & ~writableEFER == 0 else { throw .generalProtection }
        let old = cpu.pointee.efer
        if (old ^ value) & EFER.LME != 0 && cpu.pointee.cr0 & CR0.PG != 0 { throw .generalProtection }
        // LMA follows CR0.PG alone.
        cpu.pointee.efer = value & ~EFER.LMA | old & EFER.LMA
        updateFastCalls()
        if (old ^ value) & EFER.NXE != 0 { flushTLB() }
    }

    func loadMachineStatusWord(_ value: UInt64) throws(GuestFault) {
        // PE can be set, never cleared.
        let old = cpu.pointee.cr0
        try writeCR0(old & ~0xE | value & 0xF)
    }

    /// XSETBV for XCR0 (SDM vol. 1, 13.3).
    func writeXCR0(_ value: UInt64) throws(GuestFault) {
        let offered = offeredXCR0
        // AVX-512's components go together, and with AVX (SDM vol. 1, 13.3).
        let part = value & XCR0.AVX512
        if part != 0 && (part != XCR0.AVX512 || value & XCR0.AVX == 0) { throw .generalProtection }
        guard value & ~offered == 0, value & XCR0.x87 != 0, value & XCR0.AVX == 0 || value & XCR0.SSE != 0 else {
            throw .generalProtection
        }
        cpu.pointee.xcr0 = value
        system.pointee.blockEnd = 0
    }
}
