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
        fillTLB(linear: linear, translation: translation, mode: mode)
        let tlb = davit_cpu_tlb(cpu, mode)
        let i = Int(linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        return Self.hits(kind == .write ? davit_tlb_write_tag(tlb)[i] : davit_tlb_read_tag(tlb)[i], linear, size: size)
    }

    /// The guest physical address of an instruction, in RAM; nil if fetching it faults or leads to a device.
    func fetchAddress(_ rip: UInt64) -> UInt64? {
        guard UInt64(bitPattern: Int64(bitPattern: rip << 16) >> 16) == rip else { return nil }
        let mode = cpu.pointee.cpl == 3 ? DAVIT_TLB_USER.rawValue : DAVIT_TLB_KERNEL_AC.rawValue
        let cr2 = cpu.pointee.cr2
        guard let translation = try? translate(rip, mode: mode, kind: .fetch) else {
            cpu.pointee.cr2 = cr2
            return nil
        }
        let physical = translation & ~PageRights.mask | rip & 0xFFF
        return hostAddress(physical: physical) == nil || physical & ~0xFFF == system.pointee.apicPage ? nil : physical
    }

    /// To be called before bytes of RAM (inside one page) are read to cache code made of them: stores to them are seen from now on.
    func willCacheCode(physical: UInt64, size: UInt64) {
        if code.mark(at: physical, size: size) { dropWriteTags(physical: physical & ~0xFFF) }
    }
}
