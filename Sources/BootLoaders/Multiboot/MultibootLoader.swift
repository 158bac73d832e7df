import GuestMemory
import X86

/// Loads a kernel by the Multiboot Specification 0.6.96 or by the Multiboot2 Specification 2.0, which share much.
enum MultibootLoader {
    /// What EAX holds at entry (section 3.2; 3.3 of version 2).
    private static func bootMagic(_ version: MultibootHeader.Version) -> UInt64 {
        version == .one ? 0x2BAD_B002 : 0x36D7_6289
    }

    static func load(_ header: MultibootHeader, _ boot: inout Boot) throws(BootError) -> LoadedKernel {
        let (entry, end) = try loadKernel(header, &boot)
        if header.wantsVideo { boot.warnings.append("the kernel asks for a display, and the machine has none") }
        let information = try MultibootInformation(above: end, &boot)
        let info = header.version == .one ? try information.placeVersion1(&boot) : try information.placeVersion2(&boot)
        var state = try EntryState.protected32(entry: entry, boot: &boot)
        state.generalRegisters[GeneralRegister.RAX] = bootMagic(header.version)
        state.generalRegisters[GeneralRegister.RBX] = info
        let name = header.version == .one ? "Multiboot" : "Multiboot 2"
        return boot.finish(
            state, header.version == .one ? .multiboot : .multiboot2,
            kernel: "\(name) \(header.elf == nil ? "" : "ELF ")kernel")
    }

    /// Returns the entry, and the first address past the kernel.
    private static func loadKernel(
        _ header: MultibootHeader, _ boot: inout Boot
    ) throws(BootError) -> (entry: UInt64, end: UInt64) {
        let source = header.file.source
        if let addresses = header.addresses { return try loadByAddresses(addresses, header, &boot) }
        guard let elf = header.elf else { throw source.malformed("is a Multiboot kernel without ELF headers") }
        let end = try elf.loadSegments(below: MemoryMap.fourGiB, &boot)
        guard let entry = header.entry.map(UInt64.init) ?? elf.physicalEntry else {
            throw source.malformed("has the ELF entry 0x\(String(elf.entry, radix: 16)), which no segment holds")
        }
        return (entry, end)
    }

    /// The "a.out kludge" (section 3.1.3): text and data in one piece, then bss.
    private static func loadByAddresses(
        _ addresses: MultibootHeader.Addresses, _ header: MultibootHeader, _ boot: inout Boot
    ) throws(BootError) -> (entry: UInt64, end: UInt64) {
        let file = header.file
        let source = file.source
        guard addresses.load <= addresses.header, Int(addresses.header - addresses.load) <= header.offset else {
            throw source.malformed(
                "has Multiboot load and header addresses that do not fit the header's place in the file")
        }
        let fileOffset = UInt64(header.offset) - UInt64(addresses.header - addresses.load)
        let load = UInt64(addresses.load)
        let loadEnd = addresses.loadEnd == 0 ? load + (file.size - fileOffset) : UInt64(addresses.loadEnd)
        guard loadEnd > load else { throw source.malformed("has a Multiboot load end below its load address") }
        let end = addresses.bssEnd == 0 ? loadEnd : UInt64(addresses.bssEnd)
        guard end >= loadEnd else { throw source.malformed("has a Multiboot bss end below its load end") }
        let entry = UInt64(addresses.entry)
        guard entry >= load, entry < end else {
            throw source.malformed("has the Multiboot entry \(GuestPhysicalAddress(entry)) outside what it loads")
        }
        try boot.placements.claim("kernel", at: load, size: end - load, below: MemoryMap.fourGiB, for: source)
        try file.copy(at: fileOffset, count: loadEnd - load, into: boot.memory, at: load, part: "kernel")
        try boot.zero(loadEnd, count: end - loadEnd)
        return (entry, end)
    }
}
