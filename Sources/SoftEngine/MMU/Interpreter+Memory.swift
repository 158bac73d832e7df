import CDavit

// Data access by linear address with the rights of the current privilege level. The fast path is one TLB probe; everything
// else (TLB miss, page crossing, MMIO, pages that hold translated code) goes through `slowLoad` and `slowStore`.
extension Interpreter {
    @inline(__always)
    func load<Value: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ type: Value.Type, linear: UInt64
    ) throws(GuestFault) -> Value {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_read_tag(tlb)[i], linear, UInt64(MemoryLayout<Value>.size)) {
            // Safe: a matching tag means that the addend leads to a mapped page of guest RAM.
            let host = UnsafeRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i])).unsafelyUnwrapped
            return host.loadUnaligned(as: type)
        }
        return Value(truncatingIfNeeded: try slowLoad(linear: linear, size: MemoryLayout<Value>.size))
    }

    @inline(__always)
    func store<Value: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
        _ value: Value, linear: UInt64
    ) throws(GuestFault) {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_write_tag(tlb)[i], linear, UInt64(MemoryLayout<Value>.size)) {
            // Safe: as in `load`.
            let host = UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i])).unsafelyUnwrapped
            host.storeBytes(of: value, as: Value.self)
            return
        }
        try slowStore(UInt64(truncatingIfNeeded: value), linear: linear, size: MemoryLayout<Value>.size)
    }

    /// `size` in bytes: 1, 2, 4 or 8.
    @inline(__always)
    func load(linear: UInt64, size: UInt8) throws(GuestFault) -> UInt64 {
        switch size {
        case 8: return try load(UInt64.self, linear: linear)
        case 4: return UInt64(try load(UInt32.self, linear: linear))
        case 2: return UInt64(try load(UInt16.self, linear: linear))
        default: return UInt64(try load(UInt8.self, linear: linear))
        }
    }

    @inline(__always)
    func store(_ value: UInt64, linear: UInt64, size: UInt8) throws(GuestFault) {
        switch size {
        case 8: try store(value, linear: linear)
        case 4: try store(UInt32(truncatingIfNeeded: value), linear: linear)
        case 2: try store(UInt16(truncatingIfNeeded: value), linear: linear)
        default: try store(UInt8(truncatingIfNeeded: value), linear: linear)
        }
    }
}
