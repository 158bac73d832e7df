/// The setup header of a bzImage (Linux, Documentation/arch/x86/boot.rst, protocol 2.10 to 2.15). Names are the kernel's.
struct SetupHeader {
    /// Where the header begins, in the file as in boot_params.
    static let start = 0x1F1
    /// Where boot_params has other things again.
    static let limit = 0x290
    /// The oldest protocol with `pref_address` and `init_size`, without which a kernel's place is guesswork. Linux 2.6.31.
    static let oldestVersion: UInt16 = 0x020A

    let file: KernelFile
    /// The header's bytes as the file has them, from `start`.
    let bytes: [UInt8]
    let version: UInt16
    /// The kernel's release and build, or empty.
    let kernelVersion: String
    /// Where the protected-mode kernel lies in the file, and how long it is, in bytes.
    let payloadOffset: UInt64
    let payloadSize: UInt64
    /// `pref_address`: where it is to be loaded.
    let loadAddress: UInt64
    /// `init_size`: what it needs from there before it can look at the memory map, in bytes.
    let initSize: UInt64
    /// The highest address that the initrd may occupy.
    let initrdAddressMax: UInt64
    /// The longest command line in bytes, without the closing zero.
    let commandLineSize: UInt64
    /// XLF_KERNEL_64: it has an entry for 64-bit mode at 0x200.
    let hasEntry64: Bool

    static func isPresent(in head: [UInt8]) -> Bool {
        head.count >= 0x206 && head[0x202..<0x206].elementsEqual("HdrS".utf8)
    }

    /// Judges the header. `head` is the file's beginning, with `isPresent`.
    init(head: [UInt8], file: KernelFile) throws(BootError) {
        self.file = file
        let source = file.source
        let image = ByteImage(head)
        guard head.count >= 0x270 else { throw source.truncated("ends inside the setup header of a bzImage") }
        version = image.read(UInt16.self, at: 0x206)
        guard image.read(UInt16.self, at: 0x1FE) == 0xAA55 else {
            throw source.malformed("has a setup header without the boot signature 0xAA55")
        }
        guard version >= Self.oldestVersion else {
            throw source.error(
                .unsupported, "speaks Linux boot protocol \(version >> 8).\(version & 0xFF), and Davit 2.10 or later",
                mend: "give a kernel from Linux 2.6.31 or later")
        }
        guard image.read(UInt8.self, at: 0x211) & 1 != 0 else {
            throw source.error(.unsupported, "is a zImage, which is loaded low", mend: "build it as bzImage")
        }
        let end = 0x202 + Int(image.read(UInt8.self, at: 0x201))
        guard end >= 0x264 else {
            throw source.malformed("has a setup header of \(end - Self.start) bytes, too short for its version")
        }
        bytes = Array(head[Self.start..<min(end, Self.limit, head.count)])

        let setupSectors = image.read(UInt8.self, at: 0x1F1)
        payloadOffset = (setupSectors == 0 ? 4 : UInt64(setupSectors)) * 512 + 512
        let promised = UInt64(image.read(UInt32.self, at: 0x1F4)) * 16
        guard promised > 0 else { throw source.malformed("says that its protected-mode part is empty (syssize is 0)") }
        // The length is given in units of 16 bytes; the file need not fill the last one.
        guard file.size >= payloadOffset, file.size - payloadOffset + 15 >= promised else {
            throw source.truncated("has \(file.size) bytes where its header promises \(payloadOffset + promised)")
        }
        payloadSize = min(promised, file.size - payloadOffset)

        let preferred = image.read(UInt64.self, at: 0x258)
        loadAddress = preferred == 0 ? MemoryMap.highMemory : preferred
        initSize = UInt64(image.read(UInt32.self, at: 0x260))
        initrdAddressMax = UInt64(image.read(UInt32.self, at: 0x22C))
        let size = image.read(UInt32.self, at: 0x238)
        commandLineSize = size == 0 ? 255 : UInt64(size)
        hasEntry64 = version >= 0x020C && image.read(UInt16.self, at: 0x236) & 1 != 0
        kernelVersion = Self.kernelVersion(
            image.read(UInt16.self, at: 0x20E), head: head, setupEnd: payloadOffset, file: file)
    }

    /// The version string that the header points to, up to its first space; nothing hangs on it.
    private static func kernelVersion(_ pointer: UInt16, head: [UInt8], setupEnd: UInt64, file: KernelFile) -> String {
        let offset = UInt64(pointer) + 0x200
        guard pointer != 0, offset < min(setupEnd, file.size) else { return "" }
        let count = Int(min(128, file.size - offset))
        guard let bytes = try? file.read(at: offset, count: count, part: "the version string") else { return "" }
        return String(decoding: bytes.prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
    }
}
