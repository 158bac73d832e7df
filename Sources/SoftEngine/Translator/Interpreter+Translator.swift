import CDavit

// What translated code asks of the MMU.
extension Interpreter {
    /// Enters a page into the first-level TLB so that the access hits. False: it does not, as it crosses a page, faults, or goes to
    /// a device or to a page with cached code; the interpreter carries it out.
    func fillTLB(for kind: AccessKind, linear: UInt64, size: UInt64) -> Bool {
        guard linear & 0xFFF &+ size <= 4096, UInt64(bitPattern: Int64(bitPattern: linear << 16) >> 16) == linear else {
            return false
        }
        let mode = cpu.pointee.tlb_mode
        let cr2 = cpu.pointee.cr2
        guard let translation = try? translate(linear, mode: mode, kind: kind) else {
            // The interpreter will raise the fault.
            cpu.pointee.cr2 = cr2
            return false
        }
        davit_tlb_fill(cpu, linear, translation, mode)
        let tlb = davit_cpu_tlb(cpu, mode)
        let i = Int(linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        return davit_tlb_hits(kind == .write ? davit_tlb_write_tag(tlb)[i] : davit_tlb_read_tag(tlb)[i], linear, size)
    }

    /// The guest physical address of an instruction, in RAM; nil if fetching it faults or leads to a device.
    func physicalFetchAddress(_ rip: UInt64) -> UInt64? {
        let cr2 = cpu.pointee.cr2
        do throws(GuestFault) {
            guard let host = try fetchPointer(try fetchAddress(rip)) else { return nil }
            // Safe: `host` lies in RAM, which begins at `ramBase`.
            return UInt64(UInt(bitPattern: host) &- UInt(bitPattern: ramBase))
        } catch {
            // The interpreter will raise the fault.
            cpu.pointee.cr2 = cr2
            return nil
        }
    }
}
