import CDavit

// Write access ahead of the write, for instructions that read, change and write back: they fault as writes do, before anything
// is committed, and a locked one needs the place itself to be atomic against other vCPUs.
extension Interpreter {
    /// Asks for write access to `size` bytes (1 to 64) at a linear address with the rights of the current privilege level.
    ///
    /// Returns where they stand in the host, good until the next access to memory and to be written before the instruction ends.
    /// Returns nil where access is granted but no one host pointer leads there: the access
    /// crosses a page, or is MMIO; `load` and `store` then do not fault.
    @inline(__always)
    func hostPointerForWrite(linear: UInt64, size: Int) throws(GuestFault) -> UnsafeMutableRawPointer? {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_write_tag(tlb)[i], linear, UInt64(truncatingIfNeeded: size)) {
            // Safe: a matching tag means that the addend leads to a mapped, writable page of guest RAM.
            return UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i]))
        }
        return try slowHostPointerForWrite(linear: linear, size: size)
    }
}
