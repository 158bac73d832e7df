import GuestMemory
import X86

/// Loads an uncompressed 64-bit Linux `vmlinux` and enters it at `startup_64`, with boot_params made from nothing.
enum VmlinuxLoader {
    /// COMMAND_LINE_SIZE of x86, less the closing zero.
    static let commandLineSize: UInt64 = 2047
    /// The last byte that an initrd may occupy: what 64-bit kernels put into their setup headers.
    static let initrdAddressMax: UInt64 = 0x7FFF_FFFF

    static func load(_ image: ELFImage, entry: UInt64, _ boot: inout Boot) throws(BootError) -> LoadedKernel {
        try BzImageLoader.refuseModules(boot.request)
        try image.loadSegments(below: MemoryMap.fourGiB, &boot)
        let initrd = try BzImageLoader.placeInitrd(below: initrdAddressMax, &boot)
        let parameters = try BootParameters.place(
            header: header(), loadAddress: entry, commandLine: try boot.commandLine(limit: commandLineSize),
            initrd: initrd,
            &boot)
        var state = try EntryState.long64(entry: entry, boot: &boot)
        state.generalRegisters[GeneralRegister.RSI] = parameters
        return boot.finish(state, .linux64, kernel: "ELF vmlinux")
    }

    /// A setup header as the real-mode part that is missing here would carry it.
    private static func header() -> [UInt8] {
        var page = ByteImage(size: SetupHeader.limit)
        page.write(UInt16(0xAA55), at: 0x1FE)
        page.write("HdrS".utf8, at: 0x202)
        page.write(UInt16(0x020C), at: 0x206)
        page.write(UInt8(1), at: 0x211)
        page.write(UInt32(initrdAddressMax), at: 0x22C)
        page.write(UInt32(0x20_0000), at: 0x230)
        page.write(UInt32(commandLineSize), at: 0x238)
        return Array(page.bytes[SetupHeader.start...])
    }
}
