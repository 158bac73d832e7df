import GuestMemory
import X86

/// Loads an ELF kernel by Xen's PVH protocol (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h, version 1).
enum PVHLoader {
    /// XEN_HVM_START_MAGIC_VALUE.
    static let magic: UInt32 = 0x336E_C578
    private static let version: UInt32 = 1

    static func load(_ image: ELFImage, entry: UInt32, _ boot: inout Boot) throws(BootError) -> LoadedKernel {
        try image.loadSegments(below: .max, &boot)
        let info = try placeStartInfo(&boot)
        var state = try EntryState.protected32(entry: UInt64(entry), boot: &boot)
        state.generalRegisters[GeneralRegister.RBX] = info
        return boot.finish(state, .pvh, kernel: "ELF kernel with PVH note")
    }

    /// Writes `hvm_start_info` with all it points to. Returns its address.
    private static func placeStartInfo(_ boot: inout Boot) throws(BootError) -> UInt64 {
        let modules = try placeModules(&boot)
        // Linux is the kernel with the shortest command line among those that enter by PVH.
        let line = try boot.place(
            "command line", string: try boot.commandLine(limit: VmlinuxLoader.commandLineSize))
        var map = ByteImage(size: 0)
        for entry in boot.map.entries {
            map.append(entry.start)
            map.append(entry.size)
            map.append(entry.kind.rawValue)
            map.append(UInt32(0))
        }
        let mapAddress = try boot.place("memory map", map.bytes)

        var info = ByteImage(size: 56)
        info.write(magic, at: 0)
        info.write(version, at: 4)
        info.write(modules.count, at: 12)
        info.write(modules.list, at: 16)
        info.write(line, at: 24)
        info.write(boot.request.rsdp?.rawValue ?? 0, at: 32)
        info.write(mapAddress, at: 40)
        info.write(UInt32(boot.map.entries.count), at: 48)
        return try boot.place("hvm_start_info", info.bytes)
    }

    /// Puts the initrd and the modules as high as Linux can use them, and writes their `hvm_modlist_entry`s.
    private static func placeModules(_ boot: inout Boot) throws(BootError) -> (count: UInt32, list: UInt64) {
        let initrd = boot.request.initrd.map { BootModule(file: $0) }
        let modules = [initrd].compactMap { $0 } + boot.request.modules
        guard !modules.isEmpty else { return (0, 0) }
        var list = ByteImage(size: 0)
        for (index, module) in modules.enumerated() {
            let name = initrd != nil && index == 0 ? "initrd" : "module \(index)"
            let range = MemoryMap.highMemory..<VmlinuxLoader.initrdAddressMax + 1
            let start = try boot.place(name, file: module.file, in: range, .highest)
            list.append(start)
            list.append(module.file.size)
            let arguments = module.arguments
            list.append(arguments.isEmpty ? 0 : try boot.place("\(name)'s string", string: arguments))
            list.append(UInt64(0))
        }
        return (UInt32(modules.count), try boot.place("module list", list.bytes))
    }
}
