/// The header of Multiboot 2 (Multiboot2 Specification 2.0, section 3.1): a magic number, and a list of tags.
extension MultibootHeader {
    /// It lies within this many bytes from the file's beginning, on an 8-byte boundary.
    static let searchLimit2 = 32768
    private static let magic2: UInt32 = 0xE852_50D6

    /// Numbers of tags (section 3.1.3 and after).
    private enum Tag: UInt16 {
        case end = 0
        case informationRequest = 1
        case addresses = 2
        case entry = 3
        case consoleFlags = 4
        case framebuffer = 5
        case moduleAlignment = 6
        case efiBootServices = 7
        case efiEntry32 = 8
        case efiEntry64 = 9
        case relocatable = 10
    }

    /// What the information will have of what can be asked for: command line, loader's name, modules, memory sizes and map.
    private static let offered: Set<UInt32> = [1, 2, 3, 4, 6]

    /// Nil unless a header with a right checksum is found in `head`, the file's beginning.
    static func version2(searching head: [UInt8], file: KernelFile) throws(BootError) -> MultibootHeader? {
        let image = ByteImage(Array(head.prefix(searchLimit2)))
        let places = stride(from: 0, through: image.bytes.count - 16, by: 8)
        guard let offset = places.first(where: { isVersion2(image, at: $0) }) else { return nil }
        guard image.read(UInt32.self, at: offset + 4) == 0 else {
            throw file.source.error(
                .unsupported, "is a Multiboot 2 kernel for another architecture than x86", mend: "give one for i386")
        }
        let length = Int(image.read(UInt32.self, at: offset + 8))
        guard length >= 16, length <= image.bytes.count - offset else {
            throw file.source.truncated("ends inside the Multiboot 2 header")
        }
        return try read(ByteImage(Array(image.bytes[offset..<offset + length])), at: offset, head, file)
    }

    /// Magic and checksum.
    private static func isVersion2(_ image: ByteImage, at offset: Int) -> Bool {
        guard image.read(UInt32.self, at: offset) == magic2 else { return false }
        var sum: UInt32 = 0
        for field in 0..<4 { sum &+= image.read(UInt32.self, at: offset + field * 4) }
        return sum == 0
    }

    private static func read(
        _ header: ByteImage, at offset: Int, _ head: [UInt8], _ file: KernelFile
    ) throws(BootError) -> MultibootHeader {
        var addresses: Addresses?
        var entry: UInt32?
        var wantsVideo = false
        var place = 16
        while place + 8 <= header.bytes.count {
            let type = header.read(UInt16.self, at: place)
            let isOptional = header.read(UInt16.self, at: place + 2) & 1 != 0
            let size = Int(header.read(UInt32.self, at: place + 4))
            func field(_ number: Int) -> UInt32 { header.read(UInt32.self, at: place + 8 + number * 4) }
            guard size >= 8, size <= header.bytes.count - place else {
                throw file.source.malformed("has a Multiboot 2 header tag of \(size) bytes that does not fit")
            }
            switch Tag(rawValue: type) {
            case .end: return try finished(addresses, entry, wantsVideo, at: offset, head, file)
            case .informationRequest:
                let missing = (0..<(size - 8) / 4).map(field).filter { !offered.contains($0) }
                if let first = missing.first, !isOptional {
                    throw unsupported("Multiboot 2 information \(first)", file)
                }
            case .addresses where size >= 24:
                addresses = Addresses(header: field(0), load: field(1), loadEnd: field(2), bssEnd: field(3), entry: 0)
            case .entry where size >= 12: entry = field(0)
            case .framebuffer: wantsVideo = true
            case .consoleFlags, .moduleAlignment, .efiBootServices, .efiEntry32, .efiEntry64, .relocatable: break
            default: if !isOptional { throw unsupported("Multiboot 2 header tag \(type)", file) }
            }
            place += (size + 7) & ~7
        }
        throw file.source.malformed("has a Multiboot 2 header without an end")
    }

    private static func finished(
        _ addresses: Addresses?, _ entry: UInt32?, _ wantsVideo: Bool, at offset: Int, _ head: [UInt8],
        _ file: KernelFile
    ) throws(BootError) -> MultibootHeader {
        var addresses = addresses
        var elf: ELFImage?
        if addresses != nil {
            guard let entry else { throw file.source.malformed("has Multiboot 2 addresses without an entry") }
            addresses?.entry = entry
        } else {
            guard ELFImage.isPresent(in: head) else {
                throw file.source.malformed("is a Multiboot 2 kernel with neither ELF headers nor addresses")
            }
            elf = try ELFImage(head: head, file: file)
        }
        return MultibootHeader(
            version: .two, file: file, offset: offset, addresses: addresses, entry: entry, wantsVideo: wantsVideo,
            elf: elf)
    }

    private static func unsupported(_ what: String, _ file: KernelFile) -> BootError {
        file.source.error(
            .unsupported, "insists on \(what), which Davit does not have", mend: "mark it as optional in the kernel")
    }
}
