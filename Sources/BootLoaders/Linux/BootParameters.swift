import GuestMemory

/// Linux's `boot_params`, the "zero page" (Linux, Documentation/arch/x86/zero-page.rst and boot.rst).
enum BootParameters {
    static let size = 4096
    private static let maximumMapEntries = 128
    /// `type_of_loader` for a loader without a number of its own.
    private static let undefinedLoader: UInt8 = 0xFF

    /// Writes boot_params with memory map, command line, initrd and setup_data. `header` begins at offset 0x1F1.
    /// Returns its address.
    static func place(
        header: [UInt8], loadAddress: UInt64, commandLine: String, initrd: Range<UInt64>?, _ boot: inout Boot
    ) throws(BootError) -> UInt64 {
        var page = ByteImage(size: size)
        page.write(header, at: SetupHeader.start)
        page.write(undefinedLoader, at: 0x210)
        page.write(UInt32(truncatingIfNeeded: loadAddress), at: 0x214)

        let initrd = initrd ?? 0..<0
        page.write(UInt32(truncatingIfNeeded: initrd.lowerBound), at: 0x218)
        page.write(UInt32(truncatingIfNeeded: initrd.upperBound - initrd.lowerBound), at: 0x21C)
        let line = try boot.place("command line", string: commandLine)
        page.write(UInt32(truncatingIfNeeded: line), at: 0x228)
        page.write(try placeSetupData(&boot), at: 0x250)
        page.write(boot.request.rsdp?.rawValue ?? 0, at: 0x070)

        let entries = boot.map.entries.prefix(maximumMapEntries)
        page.write(UInt8(entries.count), at: 0x1E8)
        for (index, entry) in entries.enumerated() {
            page.write(entry.start, at: 0x2D0 + index * 20)
            page.write(entry.size, at: 0x2D8 + index * 20)
            page.write(entry.kind.rawValue, at: 0x2E0 + index * 20)
        }
        return try boot.place("boot_params", page.bytes, alignment: 4096)
    }

    /// Writes the linked list, last node first. Returns the address of its first node, or zero.
    private static func placeSetupData(_ boot: inout Boot) throws(BootError) -> UInt64 {
        var pieces = boot.request.setupData
        if boot.request.providesRandomSeed { pieces.append(.randomSeed()) }
        var next: UInt64 = 0
        for piece in pieces.reversed() {
            var node = ByteImage(size: 0)
            node.append(next)
            node.append(piece.type)
            node.append(UInt32(truncatingIfNeeded: piece.bytes.count))
            node.append(piece.bytes)
            next = try boot.place("setup_data \(piece.type)", node.bytes)
        }
        return next
    }
}
