import GuestMemory
import X86

/// Loads a kernel by the Multiboot Specification 0.6.96.
enum MultibootLoader {
    /// What EAX holds at entry (section 3.2).
    static let bootMagic: UInt64 = 0x2BAD_B002
    private static let loaderName = "davit"

    static func load(_ header: MultibootHeader, _ boot: inout Boot) throws(BootError) -> LoadedKernel {
        let (entry, end) = try loadKernel(header, &boot)
        if header.wantsVideo { boot.warnings.append("the kernel asks for a display, and the machine has none") }
        let info = try placeInformation(above: end, &boot)
        var state = try EntryState.protected32(entry: entry, boot: &boot)
        state.generalRegisters[GeneralRegister.RAX] = bootMagic
        state.generalRegisters[GeneralRegister.RBX] = info
        return boot.finish(state, .multiboot, kernel: header.elf == nil ? "Multiboot kernel" : "Multiboot ELF kernel")
    }

    /// Returns the entry, and the first address past the kernel.
    private static func loadKernel(
        _ header: MultibootHeader, _ boot: inout Boot
    ) throws(BootError) -> (entry: UInt64, end: UInt64) {
        let source = header.file.source
        if let addresses = header.addresses { return try loadByAddresses(addresses, header, &boot) }
        guard let elf = header.elf else { throw source.malformed("is a Multiboot kernel without ELF headers") }
        let end = try elf.loadSegments(below: MemoryMap.fourGiB, &boot)
        guard let entry = elf.physicalEntry else {
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

    /// Writes the Multiboot information (section 3.3) with all it points to. Returns its address.
    private static func placeInformation(above kernelEnd: UInt64, _ boot: inout Boot) throws(BootError) -> UInt64 {
        let modules = try placeModules(above: kernelEnd, &boot)
        // By custom the string begins with the file's name.
        let words = boot.request.commandLine.isEmpty ? [] : [boot.request.commandLine]
        let line = try boot.place("command line", string: ([boot.request.kernel.path] + words).joined(separator: " "))
        let name = try boot.place("boot loader's name", string: loaderName)
        var map = ByteImage(size: 0)
        for entry in boot.map.entries {
            map.append(UInt32(20))
            map.append(entry.start)
            map.append(entry.size)
            map.append(entry.kind.rawValue)
        }
        let mapAddress = try boot.place("memory map", map.bytes)

        var info = ByteImage(size: 116)
        // Valid are: memory sizes, command line, modules, memory map, loader's name.
        info.write(UInt32(1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9), at: 0)
        info.write(UInt32(MemoryMap.extendedBIOSDataArea >> 10), at: 4)
        let lowEnd = boot.memory.regions[0].end.rawValue
        info.write(UInt32((lowEnd - MemoryMap.highMemory) >> 10), at: 8)
        info.write(UInt32(truncatingIfNeeded: line), at: 16)
        info.write(modules.count, at: 20)
        info.write(UInt32(truncatingIfNeeded: modules.list), at: 24)
        info.write(UInt32(map.bytes.count), at: 44)
        info.write(UInt32(truncatingIfNeeded: mapAddress), at: 48)
        info.write(UInt32(truncatingIfNeeded: name), at: 64)
        return try boot.place("Multiboot information", info.bytes)
    }

    /// Puts the initrd and the modules above the kernel in order, each on pages of its own, and writes their list.
    private static func placeModules(
        above kernelEnd: UInt64, _ boot: inout Boot
    ) throws(BootError) -> (count: UInt32, list: UInt64) {
        let modules = [boot.request.initrd.map { BootModule(file: $0) }].compactMap { $0 } + boot.request.modules
        var list = ByteImage(size: 0)
        for (index, module) in modules.enumerated() {
            let name = "module \(index)"
            let range = min(max(kernelEnd, MemoryMap.highMemory), MemoryMap.fourGiB)..<MemoryMap.fourGiB
            let start = try boot.place(name, file: module.file, in: range, .lowest)
            let words = [module.file.path] + (module.arguments.isEmpty ? [] : [module.arguments])
            let string = try boot.place("\(name)'s string", string: words.joined(separator: " "))
            list.append(UInt32(truncatingIfNeeded: start))
            list.append(UInt32(truncatingIfNeeded: start + module.file.size))
            list.append(UInt32(truncatingIfNeeded: string))
            list.append(UInt32(0))
        }
        return (UInt32(modules.count), list.bytes.isEmpty ? 0 : try boot.place("module list", list.bytes))
    }
}
