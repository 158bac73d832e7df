import GuestMemory

/// What a Multiboot kernel is told, in either version's form.
struct MultibootInformation {
    /// A module in memory: its bytes, and the string that goes with it.
    struct Module {
        let start: UInt64
        let end: UInt64
        let string: String
    }

    private static let loaderName = "davit"

    let commandLine: String
    let modules: [Module]
    /// In KiB, from addresses 0 and 1 MiB on.
    let conventionalMemory = UInt32(MemoryMap.extendedBIOSDataArea >> 10)
    let highMemory: UInt32
    let map: MemoryMap

    /// Puts the initrd and the modules above the kernel in order, each on pages of its own.
    init(above kernelEnd: UInt64, _ boot: inout Boot) throws(BootError) {
        // By custom strings begin with the file's name.
        func string(_ path: String, _ words: String) -> String { words.isEmpty ? path : path + " " + words }
        var placed: [Module] = []
        let files = [boot.request.initrd.map { BootModule(file: $0) }].compactMap { $0 } + boot.request.modules
        for (index, module) in files.enumerated() {
            let range = min(max(kernelEnd, MemoryMap.highMemory), MemoryMap.fourGiB)..<MemoryMap.fourGiB
            let start = try boot.place("module \(index)", file: module.file, in: range, .lowest)
            placed.append(
                Module(start: start, end: start + module.file.size, string: string(module.file.path, module.arguments)))
        }
        modules = placed
        commandLine = string(boot.request.kernel.path, boot.request.commandLine)
        highMemory = UInt32((boot.memory.regions[0].end.rawValue - MemoryMap.highMemory) >> 10)
        map = boot.map
    }

    /// Multiboot 1 (Multiboot Specification 0.6.96, section 3.3): a structure that points to the rest. Returns its address.
    func placeVersion1(_ boot: inout Boot) throws(BootError) -> UInt64 {
        var list = ByteImage(size: 0)
        for (index, module) in modules.enumerated() {
            let string = try boot.place("module \(index)'s string", string: module.string)
            for field in [module.start, module.end, string, 0] { list.append(UInt32(truncatingIfNeeded: field)) }
        }
        let listAddress = list.bytes.isEmpty ? 0 : try boot.place("module list", list.bytes)
        let line = try boot.place("command line", string: commandLine)
        let name = try boot.place("boot loader's name", string: Self.loaderName)
        var ranges = ByteImage(size: 0)
        for entry in map.entries {
            ranges.append(UInt32(20))
            ranges.append(entry.start)
            ranges.append(entry.size)
            ranges.append(entry.kind.rawValue)
        }
        let mapAddress = try boot.place("memory map", ranges.bytes)

        var info = ByteImage(size: 116)
        // Valid are: memory sizes, command line, modules, memory map, loader's name.
        info.write(UInt32(1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9), at: 0)
        info.write(conventionalMemory, at: 4)
        info.write(highMemory, at: 8)
        info.write(UInt32(truncatingIfNeeded: line), at: 16)
        info.write(UInt32(modules.count), at: 20)
        info.write(UInt32(truncatingIfNeeded: listAddress), at: 24)
        info.write(UInt32(ranges.bytes.count), at: 44)
        info.write(UInt32(truncatingIfNeeded: mapAddress), at: 48)
        info.write(UInt32(truncatingIfNeeded: name), at: 64)
        return try boot.place("Multiboot information", info.bytes)
    }

    /// Multiboot 2 (Multiboot2 Specification 2.0, section 3.4): a list of tags that holds all. Returns its address.
    func placeVersion2(_ boot: inout Boot) throws(BootError) -> UInt64 {
        var info = ByteImage(size: 8)
        func append(_ type: UInt32, _ fields: [UInt32], _ bytes: [UInt8] = []) {
            info.append(type)
            info.append(UInt32(8 + fields.count * 4 + bytes.count))
            for field in fields { info.append(field) }
            info.append(bytes)
            while info.bytes.count % 8 != 0 { info.append(UInt8(0)) }
        }
        append(1, [], Array(commandLine.utf8) + [0])
        append(2, [], Array(Self.loaderName.utf8) + [0])
        for module in modules {
            append(
                3, [module.start, module.end].map { UInt32(truncatingIfNeeded: $0) }, Array(module.string.utf8) + [0])
        }
        append(4, [conventionalMemory, highMemory])
        var ranges = ByteImage(size: 0)
        for entry in map.entries {
            ranges.append(entry.start)
            ranges.append(entry.size)
            ranges.append(entry.kind.rawValue)
            ranges.append(UInt32(0))
        }
        append(6, [24, 0], ranges.bytes)
        append(0, [])
        info.write(UInt32(info.bytes.count), at: 0)
        return try boot.place("Multiboot information", info.bytes)
    }
}
