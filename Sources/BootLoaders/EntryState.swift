import GuestMemory
import X86

/// The processor as boot protocols hand it over: flat segments that reach all of memory, interrupts off.
///
/// Selectors are Linux's (`__BOOT_CS` 0x10, `__BOOT_DS` 0x18), which the other protocols leave open.
enum EntryState {
    static let codeSelector: UInt16 = 0x10
    static let dataSelector: UInt16 = 0x18
    static let taskSelector: UInt16 = 0x20

    private static let flatCode32 = SegmentState(selector: codeSelector, attributes: 0xC09B, limit: .max)
    private static let flatCode64 = SegmentState(selector: codeSelector, attributes: 0xA09B, limit: .max)
    private static let flatData = SegmentState(selector: dataSelector, attributes: 0xC093, limit: .max)
    /// A busy TSS at address zero with the least limit, as PVH asks for.
    private static let task = SegmentState(selector: taskSelector, attributes: 0x8B, limit: 0x67)

    /// 32-bit protected mode without paging (Multiboot 0.6.96, section 3.2; Linux's and Xen's 32-bit entries ask for the same).
    static func protected32(entry: UInt64, boot: inout Boot) throws(BootError) -> VCPUState {
        var state = try flat(code: flatCode32, boot: &boot)
        state.rip = entry
        state.cr0 = CR0.PE | CR0.ET
        return state
    }

    /// 64-bit mode with the first 4 GiB mapped to themselves by 2 MiB pages (Linux, Documentation/arch/x86/boot.rst, "64-bit boot
    /// protocol").
    static func long64(entry: UInt64, boot: inout Boot) throws(BootError) -> VCPUState {
        var state = try flat(code: flatCode64, boot: &boot)
        state.rip = entry
        state.cr3 = try pageTables(boot: &boot)
        state.cr4 = CR4.PAE
        state.cr0 = CR0.PG | CR0.NE | CR0.ET | CR0.PE
        state.efer = EFER.LME | EFER.LMA
        return state
    }

    private static func flat(code: SegmentState, boot: inout Boot) throws(BootError) -> VCPUState {
        var table = ByteImage(size: 0x30)
        for segment in [code, flatData, task] { table.write(descriptor(segment), at: Int(segment.selector)) }
        let base = try boot.place("GDT", table.bytes)

        var state = VCPUState()
        state.cs = code
        (state.ds, state.es, state.fs, state.gs, state.ss) = (flatData, flatData, flatData, flatData, flatData)
        state.tr = task
        state.ldtr = SegmentState(attributes: 0x82)
        state.gdtr = TableRegisterState(base: base, limit: UInt16(table.bytes.count - 1))
        state.idtr = TableRegisterState()
        return state
    }

    /// The descriptor of a segment with base zero (Intel SDM vol. 3, 3.4.5).
    private static func descriptor(_ segment: SegmentState) -> UInt64 {
        let granular = segment.attributes & 0x8000 != 0
        let limit = UInt64(granular ? segment.limit >> 12 : segment.limit)
        return limit & 0xFFFF | (limit >> 16 & 0xF) << 48 | UInt64(segment.attributes) << 40
    }

    private static func pageTables(boot: inout Boot) throws(BootError) -> UInt64 {
        let presentAndWritable: UInt64 = 3
        let largePage: UInt64 = 1 << 7
        let base = try boot.placements.allocate(
            "page tables", size: 6 * 4096, alignment: 4096, in: 0..<MemoryMap.fourGiB, .lowest,
            for: boot.request.kernel.source)
        var tables = ByteImage(size: 6 * 4096)
        tables.write(base + 0x1000 | presentAndWritable, at: 0)
        for gibibyte in 0..<4 {
            tables.write(base + 0x2000 + UInt64(gibibyte) << 12 | presentAndWritable, at: 0x1000 + gibibyte * 8)
        }
        for page in 0..<2048 {
            tables.write(UInt64(page) << 21 | largePage | presentAndWritable, at: 0x2000 + page * 8)
        }
        let memory = boot.memory
        try boot.writing { () throws(NotRAM) in try memory.write(bytes: tables.bytes, at: GuestPhysicalAddress(base)) }
        return base
    }
}
