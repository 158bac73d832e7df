/// The header that makes a file a Multiboot kernel (Multiboot Specification 0.6.96, section 3.1; for version 2 see there).
struct MultibootHeader {
    enum Version { case one, two }

    private static let magic: UInt32 = 0x1BAD_B002
    /// The header lies within this many bytes from the file's beginning, on a 4-byte boundary.
    private static let searchLimit = 8192
    private static let pageAlign: UInt32 = 1 << 0
    private static let memoryInfo: UInt32 = 1 << 1
    private static let videoMode: UInt32 = 1 << 2
    private static let addressFields: UInt32 = 1 << 16

    /// Where a kernel without usable ELF headers says that it belongs.
    struct Addresses {
        let header: UInt32
        let load: UInt32
        /// Zero: up to the end of the file.
        let loadEnd: UInt32
        /// Zero: nothing to be zeroed.
        let bssEnd: UInt32
        var entry: UInt32
    }

    let version: Version
    let file: KernelFile
    /// Where the header lies in the file.
    let offset: Int
    /// Nil: the file's ELF headers say it.
    let addresses: Addresses?
    /// Where to enter it, if not where the ELF headers say.
    let entry: UInt32?
    /// The kernel would like a display, and there is none.
    let wantsVideo: Bool
    let elf: ELFImage?

    /// Nil unless a header with a right checksum is found in `head`, the file's beginning.
    static func version1(searching head: [UInt8], file: KernelFile) throws(BootError) -> MultibootHeader? {
        let source = file.source
        let image = ByteImage(Array(head.prefix(searchLimit)))
        let places = stride(from: 0, through: image.bytes.count - 12, by: 4)
        guard
            let offset = places.first(where: {
                image.read(UInt32.self, at: $0) == magic
                    && image.read(UInt32.self, at: $0) &+ image.read(UInt32.self, at: $0 + 4)
                        &+ image.read(UInt32.self, at: $0 + 8) == 0
            })
        else { return nil }
        let flags = image.read(UInt32.self, at: offset + 4)
        let unknown = flags & 0xFFFF & ~(pageAlign | memoryInfo | videoMode)
        guard unknown == 0 else {
            throw source.error(
                .unsupported, "asks by its Multiboot flags 0x\(String(flags, radix: 16)) for what no specification has",
                mend: "build it with flags 0 to 2 only")
        }
        var addresses: Addresses?
        var elf: ELFImage?
        if flags & addressFields != 0 {
            guard image.bytes.count >= offset + 32 else { throw source.truncated("ends inside the Multiboot header") }
            addresses = Addresses(
                header: image.read(UInt32.self, at: offset + 12), load: image.read(UInt32.self, at: offset + 16),
                loadEnd: image.read(UInt32.self, at: offset + 20), bssEnd: image.read(UInt32.self, at: offset + 24),
                entry: image.read(UInt32.self, at: offset + 28))
        } else {
            guard ELFImage.isPresent(in: head) else {
                throw source.malformed("is a Multiboot kernel with neither ELF headers nor address fields")
            }
            elf = try ELFImage(head: head, file: file)
        }
        return MultibootHeader(
            version: .one, file: file, offset: offset, addresses: addresses, entry: nil,
            wantsVideo: flags & videoMode != 0, elf: elf)
    }
}
