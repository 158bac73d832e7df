/// The header that makes a file a Multiboot kernel (Multiboot Specification 0.6.96, section 3.1).
struct MultibootHeader {
    static let magic: UInt32 = 0x1BAD_B002
    static let magic2: UInt32 = 0xE852_50D6
    /// The header lies within this many bytes from the file's beginning, on a 4-byte boundary.
    static let searchLimit = 8192
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
        let entry: UInt32
    }

    let file: KernelFile
    /// Where the header lies in the file.
    let offset: Int
    /// Nil: the file's ELF headers say it.
    let addresses: Addresses?
    /// The kernel would like a display, and there is none.
    let wantsVideo: Bool
    let elf: ELFImage?

    /// Nil unless a header with a right checksum is found in `head`, the file's beginning.
    init?(searching head: [UInt8], file: KernelFile) throws(BootError) {
        let source = file.source
        let image = ByteImage(Array(head.prefix(Self.searchLimit)))
        let places = stride(from: 0, through: image.bytes.count - 12, by: 4)
        guard
            let offset = places.first(where: {
                image.read(UInt32.self, at: $0) == Self.magic
                    && image.read(UInt32.self, at: $0) &+ image.read(UInt32.self, at: $0 + 4)
                        &+ image.read(UInt32.self, at: $0 + 8) == 0
            })
        else {
            if !ELFImage.isPresent(in: head), places.contains(where: { Self.isMultiboot2(image, at: $0) }) {
                throw source.error(
                    .unsupported, "is a Multiboot 2 kernel, and Davit loads Multiboot 1",
                    mend: "build it with a Multiboot 1 header or a PVH note as well")
            }
            return nil
        }
        self.file = file
        self.offset = offset
        let flags = image.read(UInt32.self, at: offset + 4)
        let unknown = flags & 0xFFFF & ~(Self.pageAlign | Self.memoryInfo | Self.videoMode)
        guard unknown == 0 else {
            throw source.error(
                .unsupported, "asks by its Multiboot flags 0x\(String(flags, radix: 16)) for what no specification has",
                mend: "build it with flags 0 to 2 only")
        }
        wantsVideo = flags & Self.videoMode != 0
        if flags & Self.addressFields != 0 {
            guard image.bytes.count >= offset + 32 else { throw source.truncated("ends inside the Multiboot header") }
            addresses = Addresses(
                header: image.read(UInt32.self, at: offset + 12), load: image.read(UInt32.self, at: offset + 16),
                loadEnd: image.read(UInt32.self, at: offset + 20), bssEnd: image.read(UInt32.self, at: offset + 24),
                entry: image.read(UInt32.self, at: offset + 28))
            elf = nil
        } else {
            addresses = nil
            guard ELFImage.isPresent(in: head) else {
                throw source.malformed("is a Multiboot kernel with neither ELF headers nor address fields")
            }
            elf = try ELFImage(head: head, file: file)
        }
    }

    /// Magic and checksum of Multiboot 2 (Multiboot2 Specification 2.0, section 3.1.1).
    private static func isMultiboot2(_ image: ByteImage, at offset: Int) -> Bool {
        guard image.read(UInt32.self, at: offset) == magic2, offset + 16 <= image.bytes.count else { return false }
        var sum: UInt32 = 0
        for field in 0..<4 { sum &+= image.read(UInt32.self, at: offset + field * 4) }
        return sum == 0
    }
}
