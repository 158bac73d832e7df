import CDavit
import X86

/// A component of extended state beyond AVX, of which only place and size matter (Intel SDM vol. 1, 13.4; CPUID leaf 0xD).
struct OpaqueComponent: BitwiseCopyable {
    /// Of XCR0.
    let bit: UInt64
    /// In the standard layout, in bytes, as in `davit_cpu.xsave`.
    let offset: Int
    /// In bytes.
    let size: Int
    /// In the compacted layout it begins at a multiple of 64.
    let isAligned: Bool

    /// Those that CPUID names and an image of `DAVIT_XSAVE_SIZE` has room for, in the order of their bits.
    static func all(_ cpuid: [CPUIDEntry]) -> [OpaqueComponent] {
        guard let head = cpuid.first(where: { $0.leaf == 0xD && $0.subleaf == 0 }) else { return [] }
        return cpuid.compactMap { entry in
            guard entry.leaf == 0xD, entry.subleaf >= 3, entry.subleaf < 32, head.eax >> entry.subleaf & 1 != 0,
                Int(entry.ebx) + Int(entry.eax) <= Int(DAVIT_XSAVE_SIZE), entry.ebx >= 832, entry.eax % 8 == 0
            else { return nil }
            return OpaqueComponent(
                bit: 1 << UInt64(entry.subleaf), offset: Int(entry.ebx), size: Int(entry.eax),
                isAligned: entry.ecx & 2 != 0)
        }.sorted { $0.bit < $1.bit }
    }
}

extension Interpreter {
    /// Bytes of an XSAVE area in the standard layout with these components.
    func areaSize(_ components: UInt64) -> UInt32 {
        var size = components & XCR0.AVX != 0 ? 832 : 576
        for component in opaqueComponents where components & component.bit != 0 {
            size = max(size, component.offset + component.size)
        }
        return UInt32(size)
    }

    /// Where an opaque component stands in a compacted area with these components.
    func compactedOffset(of wanted: OpaqueComponent, among components: UInt64) -> Int {
        var offset = components & XCR0.AVX != 0 ? 832 : 576
        for component in opaqueComponents where components & component.bit != 0 {
            if component.isAligned { offset = (offset + 63) & ~63 }
            if component.bit == wanted.bit { break }
            offset += component.size
        }
        return offset
    }
}
