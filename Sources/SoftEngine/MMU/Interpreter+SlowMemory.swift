import CDavit
import GuestMemory
import MachineModel
import X86

// Data accesses that miss the first-level TLB, cross pages, or go to devices.
extension Interpreter {
    /// `size` is 1 to 8 bytes; the access may cross a page.
    func slowLoad(linear: UInt64, size: Int) throws(GuestFault) -> UInt64 {
        let value = try load(
            linear: linear, size: size, mode: cpu.pointee.tlb_mode, checkAlignment: system.pointee.checksAlignment)
        if system.pointee.watchesData { noteDataBreakpoints(linear: linear, size: UInt64(size), write: false) }
        return value
    }

    func slowStore(_ value: UInt64, linear: UInt64, size: Int) throws(GuestFault) {
        try store(
            value, linear: linear, size: size, mode: cpu.pointee.tlb_mode,
            checkAlignment: system.pointee.checksAlignment)
        if system.pointee.watchesData { noteDataBreakpoints(linear: linear, size: UInt64(size), write: true) }
    }

    /// Reads a descriptor table or task state: a supervisor access whatever the CPL.
    func systemLoad(linear: UInt64, size: Int) throws(GuestFault) -> UInt64 {
        try load(linear: linear, size: size, mode: systemMode, checkAlignment: false)
    }

    func systemStore(_ value: UInt64, linear: UInt64, size: Int) throws(GuestFault) {
        try store(value, linear: linear, size: size, mode: systemMode, checkAlignment: false)
    }

    /// Reads with the rights of `mode` (enum davit_tlb_mode).
    func load(linear: UInt64, size: Int, mode: UInt32, checkAlignment: Bool) throws(GuestFault) -> UInt64 {
        let room = 4096 &- Int(truncatingIfNeeded: linear & 0xFFF)
        if checkAlignment && isAMD { try requireAlignment(linear, size: size) }
        let first = try translate(linear, mode: mode, kind: .read)
        guard size > room else {
            if checkAlignment { try requireAlignment(linear, size: size) }
            davit_tlb_fill(cpu, linear, first, mode)
            return readPhysical(first & ~PageRights.mask | linear & 0xFFF, size: size)
        }
        let second = try translate(nextPage(linear), mode: mode, kind: .read)
        if checkAlignment { try requireAlignment(linear, size: size) }
        let low = readPhysical(first & ~PageRights.mask | linear & 0xFFF, size: room)
        return low | readPhysical(second & ~PageRights.mask, size: size &- room) << UInt64(room &* 8)
    }

    /// Writes with the rights of `mode`; both pages of a crossing are checked before anything is written.
    func store(_ value: UInt64, linear: UInt64, size: Int, mode: UInt32, checkAlignment: Bool) throws(GuestFault) {
        let room = 4096 &- Int(truncatingIfNeeded: linear & 0xFFF)
        if checkAlignment && isAMD { try requireAlignment(linear, size: size) }
        let first = try translate(linear, mode: mode, kind: .write)
        guard size > room else {
            if checkAlignment { try requireAlignment(linear, size: size) }
            davit_tlb_fill(cpu, linear, first, mode)
            writePhysical(first & ~PageRights.mask | linear & 0xFFF, size: size, value)
            return
        }
        let second = try translate(nextPage(linear), mode: mode, kind: .write)
        if checkAlignment { try requireAlignment(linear, size: size) }
        writePhysical(first & ~PageRights.mask | linear & 0xFFF, size: room, value)
        writePhysical(second & ~PageRights.mask, size: size &- room, value >> UInt64(room &* 8))
    }

    /// `hostPointerForWrite` without a TLB hit. The write is taken to happen before the instruction ends.
    func slowHostPointerForWrite(linear: UInt64, size: Int) throws(GuestFault) -> UnsafeMutableRawPointer? {
        let mode = cpu.pointee.tlb_mode
        if system.pointee.checksAlignment && isAMD { try requireAlignment(linear, size: size) }
        let translation = try translate(linear, mode: mode, kind: .write)
        let crosses = Int(truncatingIfNeeded: linear & 0xFFF) &+ size > 4096
        if crosses { _ = try translate(nextPage(linear), mode: mode, kind: .write) }
        if system.pointee.checksAlignment { try requireAlignment(linear, size: size) }
        if system.pointee.watchesData { noteDataBreakpoints(linear: linear, size: UInt64(size), write: true) }
        let physical = translation & ~PageRights.mask | linear & 0xFFF
        guard !crosses, let host = writableHostAddress(physical: physical), physical & ~0xFFF != cpu.pointee.apic_page
        else {
            return nil
        }
        davit_tlb_fill(cpu, linear, translation, mode)
        if !code.isPlain(page: physical) {
            system.pointee.pendingCodeWrite = physical
            system.pointee.pendingCodeWriteSize = UInt64(truncatingIfNeeded: size)
            system.pointee.blockEnd = 0
        }
        return host
    }

    /// Notes the write that `slowHostPointerForWrite` announced, once the instruction is done.
    func finishCodeWrite() {
        let address = system.pointee.pendingCodeWrite
        guard address != UInt64.max else { return }
        system.pointee.pendingCodeWrite = UInt64.max
        didStore(physical: address, size: system.pointee.pendingCodeWriteSize)
    }

    /// The first byte of the next page; outside 64-bit mode linear addresses wrap at 4 GiB.
    @inline(__always)
    func nextPage(_ linear: UInt64) -> UInt64 {
        let next = (linear | 0xFFF) &+ 1
        return cpu.pointee.efer & EFER.LMA != 0 ? next : next & 0xFFFF_FFFF
    }

    /// AMD's CPUs look at the alignment before they look at the page, Intel's after. Operands of 32 bytes need that of 16.
    private func requireAlignment(_ linear: UInt64, size: Int) throws(GuestFault) {
        let bytes = UInt64(truncatingIfNeeded: min(size, 16))
        if bytes & (bytes &- 1) == 0 && linear & (bytes &- 1) != 0 { throw GuestFault(.AC, errorCode: 0) }
    }

    // MARK: Physical memory

    /// The host address of a guest physical address in RAM; the rest of its page is RAM too.
    @inline(__always)
    func hostAddress(physical: UInt64) -> UnsafeMutableRawPointer? {
        // Safe: RAM is `ramBase` + address in both regions, which end on page boundaries.
        davit_is_ram(cpu, physical) ? ramBase + Int(truncatingIfNeeded: physical) : nil
    }

    /// The same for what the guest's processors may write to.
    @inline(__always)
    func writableHostAddress(physical: UInt64) -> UnsafeMutableRawPointer? {
        davit_is_rom(physical) ? nil : hostAddress(physical: physical)
    }

    /// Reads `size` bytes (1 to 8) that lie in one page.
    func readPhysical(_ address: UInt64, size: Int) -> UInt64 {
        if address & ~0xFFF != cpu.pointee.apic_page, let host = hostAddress(physical: address) {
            switch size {
            case 8: return host.loadUnaligned(as: UInt64.self)
            case 4: return UInt64(host.loadUnaligned(as: UInt32.self))
            case 2: return UInt64(host.loadUnaligned(as: UInt16.self))
            case 1: return UInt64(host.load(as: UInt8.self))
            default: break
            }
        }
        var value: UInt64 = 0
        var done = 0
        while done < size {
            let width = Self.width(remaining: size &- done)
            value |= readDevice(address &+ UInt64(done), width: width) << UInt64(done &* 8)
            done &+= width.bytes
        }
        return value
    }

    /// Writes `size` bytes (1 to 8) that lie in one page.
    func writePhysical(_ address: UInt64, size: Int, _ value: UInt64) {
        if address & ~0xFFF != cpu.pointee.apic_page, let host = writableHostAddress(physical: address) {
            switch size {
            case 8: host.storeBytes(of: value, as: UInt64.self)
            case 4: host.storeBytes(of: UInt32(truncatingIfNeeded: value), as: UInt32.self)
            case 2: host.storeBytes(of: UInt16(truncatingIfNeeded: value), as: UInt16.self)
            default:
                for i in 0..<size {
                    host.storeBytes(
                        of: UInt8(truncatingIfNeeded: value >> UInt64(i &* 8)), toByteOffset: i, as: UInt8.self)
                }
            }
            didStore(physical: address, size: UInt64(truncatingIfNeeded: size))
            return
        }
        var done = 0
        while done < size {
            let width = Self.width(remaining: size &- done)
            writeDevice(address &+ UInt64(done), width: width, value >> UInt64(done &* 8) & width.mask)
            done &+= width.bytes
        }
    }

    /// RAM was written past the write tags: code cached from there is stale, the block being run included.
    @inline(__always)
    func didStore(physical: UInt64, size: UInt64) {
        if code.didWrite(at: physical, size: size) { system.pointee.blockEnd = 0 }
    }

    /// The widest access that fits: odd sizes, left by page crossings, go in pieces.
    private static func width(remaining: Int) -> AccessWidth {
        remaining >= 8 ? .eight : remaining >= 4 ? .four : remaining >= 2 ? .two : .one
    }

    private func readDevice(_ address: UInt64, width: AccessWidth) -> UInt64 {
        // Odd-sized pieces of RAM come this way too.
        if address & ~0xFFF != cpu.pointee.apic_page, let host = hostAddress(physical: address) {
            var value: UInt64 = 0
            for i in 0..<width.bytes {
                value |= UInt64(host.load(fromByteOffset: i, as: UInt8.self)) << UInt64(i &* 8)
            }
            return value
        }
        if address & ~0xFFF == cpu.pointee.apic_page, let apic {
            settleEndOfInterrupt()
            return apic.readMMIO(offset: address & 0xFFF, width: width) & width.mask
        }
        return io.readMMIO(GuestPhysicalAddress(address), width: width) & width.mask
    }

    private func writeDevice(_ address: UInt64, width: AccessWidth, _ value: UInt64) {
        if address & ~0xFFF == cpu.pointee.apic_page, let apic {
            // An interrupt to oneself is taken at the next boundary.
            system.pointee.blockEnd = 0
            settleEndOfInterrupt()
            return apic.writeMMIO(offset: address & 0xFFF, width: width, value: value)
        }
        io.writeMMIO(GuestPhysicalAddress(address), width: width, value: value)
    }
}
