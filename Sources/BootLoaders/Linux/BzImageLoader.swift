import GuestMemory
import X86

/// Loads a bzImage at the address that it prefers (Linux, Documentation/arch/x86/boot.rst).
enum BzImageLoader {
    static func load(_ header: SetupHeader, _ boot: inout Boot) throws(BootError) -> LoadedKernel {
        let file = header.file
        try refuseModules(boot.request)
        try boot.placements.claim(
            "kernel", at: header.loadAddress, size: max(header.initSize, header.payloadSize), below: MemoryMap.fourGiB,
            for: file.source)
        try file.copy(
            at: header.payloadOffset, count: header.payloadSize, into: boot.memory, at: header.loadAddress,
            part: "kernel")

        let commandLine = try boot.commandLine(limit: header.commandLineSize)
        let initrd = try placeInitrd(below: header.initrdAddressMax, &boot)
        let parameters = try BootParameters.place(
            header: header.bytes, loadAddress: header.loadAddress, commandLine: commandLine, initrd: initrd, &boot)

        let entersIn64 = boot.request.bootProtocol != .linux32 && header.hasEntry64
        var state =
            entersIn64
            ? try EntryState.long64(entry: header.loadAddress + 0x200, boot: &boot)
            : try EntryState.protected32(entry: header.loadAddress, boot: &boot)
        state.generalRegisters[GeneralRegister.RSI] = parameters
        return boot.finish(
            state, entersIn64 ? .linux64 : .linux32,
            kernel: header.kernelVersion.isEmpty ? "bzImage" : "bzImage " + header.kernelVersion)
    }

    /// Puts the initrd as high as kernel and RAM below the devices' hole allow. `limit` is the last byte it may occupy.
    static func placeInitrd(below limit: UInt64, _ boot: inout Boot) throws(BootError) -> Range<UInt64>? {
        guard let file = boot.request.initrd else { return nil }
        let end = min(limit, MemoryMap.fourGiB - 1) + 1
        guard end > MemoryMap.highMemory else {
            throw boot.request.kernel.source.malformed("allows an initrd only below \(GuestPhysicalAddress(end))")
        }
        let start = try boot.place("initrd", file: file, in: MemoryMap.highMemory..<end, .highest)
        return start..<start + file.size
    }

    static func refuseModules(_ request: BootRequest) throws(BootError) {
        guard let module = request.modules.first else { return }
        throw module.file.source.error(
            .unsupported, "Linux's boot protocol takes no modules",
            mend: "give it as --initrd, or boot by Multiboot or PVH")
    }
}
