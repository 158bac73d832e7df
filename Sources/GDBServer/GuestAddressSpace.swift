import GuestMemory
import X86

/// The guest's linear addresses, by the page tables that a vCPU has in force (Intel SDM vol. 3, 4.3 to 4.5). Rights are not looked at, and
/// no accessed or dirty bits set.
struct GuestAddressSpace {
    let memory: GuestMemory
    /// Nil: addresses are physical.
    let state: VCPUState?

    private static let present: UInt64 = 1
    private static let large: UInt64 = 1 << 7
    /// Bits 51 to 12.
    private static let addressMask: UInt64 = 0xF_FFFF_FFFF_F000

    /// As many bytes as are RAM from there on, at most `count`.
    func read(_ address: UInt64, count: Int) -> [UInt8] {
        var result: [UInt8] = []
        forEachPart(address, count) { place, _, size in
            guard let bytes = try? memory.readBytes(at: place, count: size) else { return false }
            result += bytes
            return true
        }
        return result
    }

    /// False, with nothing written, if not all of the place is RAM.
    func write(_ bytes: [UInt8], at address: UInt64) -> Bool {
        var parts: [(GuestPhysicalAddress, Range<Int>)] = []
        forEachPart(address, bytes.count) { place, offset, size in
            guard memory.pointer(at: place, count: UInt64(size)) != nil else { return false }
            parts.append((place, offset..<offset + size))
            return true
        }
        guard parts.reduce(0, { $0 + $1.1.count }) == bytes.count else { return false }
        for (place, range) in parts { try? memory.write(bytes: Array(bytes[range]), at: place) }
        return true
    }

    /// The parts of a range that lie in one page each, until `body` says false or one is not there.
    private func forEachPart(
        _ address: UInt64, _ count: Int, _ body: (GuestPhysicalAddress, Int, Int) -> Bool
    ) {
        var done = 0
        while done < count {
            let linear = address &+ UInt64(done)
            let size = min(count - done, 4096 - Int(linear & 0xFFF))
            guard let place = translate(linear), body(GuestPhysicalAddress(place), done, size) else { return }
            done += size
        }
    }

    private func translate(_ linear: UInt64) -> UInt64? {
        guard let state, state.cr0 & CR0.PG != 0 else { return linear }
        if state.efer & EFER.LMA != 0 {
            return walk(
                linear, from: state.cr3 & Self.addressMask, shifts: state.cr4 & CR4.LA57 != 0 ? 48 : 39, indexBits: 9)
        }
        let linear = linear & 0xFFFF_FFFF
        if state.cr4 & CR4.PAE != 0 {
            guard let entry = entry(state.cr3 & 0xFFFF_FFE0, linear >> 30, size: 8) else { return nil }
            return walk(linear, from: entry & Self.addressMask, shifts: 21, indexBits: 9)
        }
        return walk(linear, from: state.cr3 & 0xFFFF_F000, shifts: 22, indexBits: 10)
    }

    /// From the table whose entries are for `1 << shifts` bytes each.
    private func walk(_ linear: UInt64, from table: UInt64, shifts: UInt64, indexBits: UInt64) -> UInt64? {
        var table = table
        var shift = shifts
        while true {
            let index = linear >> shift & (1 << indexBits - 1)
            guard let entry = entry(table, index, size: indexBits == 9 ? 8 : 4) else { return nil }
            let offset = linear & (1 << shift - 1)
            if shift == 12 { return entry & Self.addressMask | offset }
            if entry & Self.large != 0 && shift <= 30 {
                // 4 MiB pages have bits 39 to 32 of their address in bits 20 to 13 (PSE-36).
                let high = indexBits == 10 ? (entry >> 13 & 0xFF) << 32 : 0
                return entry & Self.addressMask & ~(1 << shift - 1) | high | offset
            }
            table = entry & Self.addressMask
            shift -= indexBits
        }
    }

    /// A present entry.
    private func entry(_ table: UInt64, _ index: UInt64, size: UInt64) -> UInt64? {
        let place = GuestPhysicalAddress(table &+ index &* size)
        let value =
            size == 8
            ? try? memory.read(UInt64.self, at: place) : (try? memory.read(UInt32.self, at: place)).map(UInt64.init)
        return value.flatMap { $0 & Self.present != 0 ? $0 : nil }
    }
}
