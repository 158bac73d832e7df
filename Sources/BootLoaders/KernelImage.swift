/// A kernel that was recognized by its content.
enum KernelImage {
    case bzImage(SetupHeader)
    case pvh(ELFImage, entry: UInt32)
    case vmlinux(ELFImage, entry: UInt64)
    case multiboot(MultibootHeader)

    /// Looks at what the file holds, and never at its name. A Multiboot header goes before a PVH note, because only Multiboot says
    /// what modules are for, and version 1 before version 2, for want of a difference; the request's protocol decides where a kernel has several.
    static func recognize(_ request: BootRequest) throws(BootError) -> KernelImage {
        let file = request.kernel
        let wanted = request.bootProtocol
        let head = try file.head(BootLoader.headSize)

        if SetupHeader.isPresent(in: head) {
            let header = try SetupHeader(head: head, file: file)
            switch wanted {
            case nil, .linux32: return .bzImage(header)
            case .linux64 where header.hasEntry64: return .bzImage(header)
            default: throw mismatch(file, "is a bzImage", header.hasEntry64 ? "linux64 or linux32" : "linux32")
            }
        }
        let multiboot = try MultibootHeader.version1(searching: head, file: file)
        if let multiboot, wanted == nil || wanted == .multiboot { return .multiboot(multiboot) }
        if multiboot == nil || wanted == .multiboot2,
            let multiboot2 = try MultibootHeader.version2(searching: head, file: file),
            wanted == nil || wanted == .multiboot2
        {
            return .multiboot(multiboot2)
        }
        if ELFImage.isPresent(in: head) {
            let image = try ELFImage(head: head, file: file)
            let note = try image.pvhEntry()
            if let note, wanted == nil || wanted == .pvh { return .pvh(image, entry: note) }
            if let entry = image.linuxEntry, wanted == nil || wanted == .linux64 {
                return .vmlinux(image, entry: entry)
            }
            if note != nil { throw mismatch(file, "is an ELF kernel with a PVH note", "pvh") }
            if image.linuxEntry != nil { throw mismatch(file, "is a Linux vmlinux", "linux64") }
        }
        if multiboot != nil { throw mismatch(file, "is a Multiboot kernel", "multiboot") }
        if ELFImage.isPresent(in: head) {
            throw file.source.error(
                .unsupported,
                "is an ELF file for x86 with neither a PVH note nor a Multiboot header, and not a Linux vmlinux",
                mend: "build the kernel with CONFIG_PVH, or give its bzImage")
        }
        throw file.source.error(
            .notAKernel, "is not a kernel but \(FileKind.describe(head))",
            mend: "give a bzImage, an ELF kernel with a PVH note, or a Multiboot kernel")
    }

    func load(_ boot: inout Boot) throws(BootError) -> LoadedKernel {
        switch self {
        case .bzImage(let header): try BzImageLoader.load(header, &boot)
        case .pvh(let image, let entry): try PVHLoader.load(image, entry: entry, &boot)
        case .vmlinux(let image, let entry): try VmlinuxLoader.load(image, entry: entry, &boot)
        case .multiboot(let header): try MultibootLoader.load(header, &boot)
        }
    }

    private static func mismatch(_ file: KernelFile, _ what: String, _ protocols: String) -> BootError {
        file.source.error(
            .unsupported, "\(what), which the chosen boot protocol cannot enter", mend: "choose \(protocols)")
    }
}
