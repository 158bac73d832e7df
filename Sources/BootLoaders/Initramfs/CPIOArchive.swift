/// An archive as Linux unpacks it into its first file system: cpio in the format "newc" (Linux: Documentation/driver-api/early-userspace/
/// buffer-format.rst).
struct CPIOArchive {
    private static let magic = "070701"
    private static let regular: UInt32 = 0o100000
    private static let directory: UInt32 = 0o040000
    private static let character: UInt32 = 0o020000
    private static let trailer = "TRAILER!!!"

    private var bytes: [UInt8] = []
    private var inode: UInt32 = 0

    mutating func addDirectory(_ name: String) { add(name, mode: Self.directory | 0o755) }

    mutating func addFile(_ name: String, _ contents: [UInt8], mode: UInt32 = 0o644) {
        add(name, mode: Self.regular | mode, contents)
    }

    mutating func addCharacterDevice(_ name: String, major: UInt32, minor: UInt32) {
        add(name, mode: Self.character | 0o600, device: (major, minor))
    }

    /// The whole archive.
    func finished() -> [UInt8] {
        var copy = self
        copy.add(Self.trailer, mode: 0)
        return copy.bytes
    }

    private mutating func add(
        _ name: String, mode: UInt32, _ contents: [UInt8] = [], device: (major: UInt32, minor: UInt32) = (0, 0)
    ) {
        inode += 1
        // Inode, mode, owner, group, links, time, size, device, device it stands for, length of the name with its zero, checksum.
        let fields: [UInt32] = [
            inode, mode, 0, 0, 1, 0, UInt32(contents.count), 0, 0, device.major, device.minor,
            UInt32(name.utf8.count + 1), 0,
        ]
        bytes += Self.magic.utf8
        for field in fields {
            let digits = String(field, radix: 16)
            bytes += (String(repeating: "0", count: 8 - digits.count) + digits).utf8
        }
        bytes += name.utf8
        bytes.append(0)
        align()
        bytes += contents
        align()
    }

    private mutating func align() { bytes += repeatElement(0, count: -bytes.count & 3) }
}
