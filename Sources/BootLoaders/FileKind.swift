/// Says what a file is that was taken for a kernel.
enum FileKind {
    private static let signatures: [(offset: Int, bytes: [UInt8], what: String)] = [
        (0, [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00], "an xz-compressed file (unpack it with unxz first)"),
        (0, [0x28, 0xB5, 0x2F, 0xFD], "a zstd-compressed file (unpack it with unzstd first)"),
        (0, [0x02, 0x21, 0x4C, 0x18], "an lz4-compressed file (unpack it with unlz4 first)"),
        (0, [0x04, 0x22, 0x4D, 0x18], "an lz4-compressed file (unpack it with unlz4 first)"),
        (0, Array("BZh".utf8), "a bzip2-compressed file (unpack it with bunzip2 first)"),
        (0, Array("07070".utf8), "a cpio archive (an initramfs goes to --initrd)"),
        (0, Array("!<arch>\ndebian".utf8), "a Debian package (the kernel is inside it)"),
        (0, Array("!<arch>\n".utf8), "a static library"),
        (0, [0xED, 0xAB, 0xEE, 0xDB], "an RPM package (the kernel is inside it)"),
        (0, Array("QFI".utf8) + [0xFB], "a qcow2 disk image"),
        (0, Array("KDMV".utf8), "a VMDK disk image"),
        (0, Array("PK".utf8) + [3, 4], "a zip archive"),
        (0, Array("#!".utf8), "a script"),
        (0x38, Array("ARM".utf8) + [0x64], "a Linux image for 64-bit ARM"),
        (0x24, [0x18, 0x28, 0x6F, 0x01], "a Linux image for 32-bit ARM"),
        (0x30, Array("RISCV".utf8), "a Linux image for RISC-V"),
        (0, [0x27, 0x05, 0x19, 0x56], "a U-Boot image"),
        (0, [0xD0, 0x0D, 0xFE, 0xED], "a device tree"),
        (0, Array("MZ".utf8), "an EFI or Windows program without Linux's setup header"),
        (257, Array("ustar".utf8), "a tar archive"),
        (510, [0x55, 0xAA], "a disk image or boot sector"),
    ]

    /// What the file is, from its first bytes.
    static func describe(_ head: [UInt8]) -> String {
        for (offset, bytes, what) in signatures where head.dropFirst(offset).starts(with: bytes) { return what }
        if head.allSatisfy({ $0 == 0 }) { return "zeros" }
        if head.allSatisfy({ $0 >= 0x20 && $0 < 0x7F || $0 == 9 || $0 == 10 || $0 == 13 }) { return "text" }
        return "data of an unknown kind"
    }
}
