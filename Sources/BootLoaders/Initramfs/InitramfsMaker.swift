import Glibc

/// Makes an initramfs for a kernel whose disk drivers are modules, as Debian's are: those modules, and a program that loads them, mounts
/// the root disk and goes on with the system on it (`root=`, by default /dev/vda, `rootfstype=`, `rootflags=`, `init=`, `ro`, `rw`).
public struct InitramfsMaker {
    /// What a root disk may need, in order of dependence. What a kernel has built in, or does not have, is not found and left out.
    private static let modules = [
        "pvpanic", "pvpanic-mmio", "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
        "virtio_pci", "virtio_mmio", "virtio_blk", "crc32c_generic", "crc32c-intel", "libcrc32c", "crc16", "mbcache",
        "jbd2", "ext4",
    ]
    /// Without it there is no disk.
    private static let diskDriver = "virtio_blk"
    /// Endings of a module's file: plain, or as Linux unpacks it by itself.
    private static let endings = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]

    /// The kernel's release, such as 6.1.0-56-cloud-amd64.
    public let release: String
    /// Those that there are, by name.
    private let found: [String: Module]

    /// A module's file, opened when it is needed.
    private struct Module {
        /// Without directories.
        let file: String
        let open: () throws(BootError) -> KernelFile
    }

    /// Looks for the kernel's modules on the host: `modules/RELEASE` and `../lib/modules/RELEASE` beside it, then `/lib/modules/RELEASE`. Nil
    /// if the kernel does not say its release, or there are none.
    public init?(kernel: KernelFile) {
        guard let release = Self.release(of: kernel) else { return nil }
        self.release = release
        let place = kernel.path.lastIndex(of: "/").map { String(kernel.path[..<$0]) } ?? "."
        let candidates = ["\(place)/modules", "\(place)/../lib/modules", "/lib/modules"].map { "\($0)/\(release)" }
        guard let directory = candidates.first(where: { access($0, R_OK | X_OK) == 0 }) else { return nil }
        found = Self.findModules(in: directory).mapValues { path in
            Module(file: Self.lastPart(path)) { () throws(BootError) in try KernelFile(path: path, flag: "--kernel") }
        }
    }

    /// Looks for the kernel's modules in a file system of which `read` gives files, nil for one that is not there: by `modules.dep`, which
    /// lists them all (modules.dep(5)). Nil if the kernel does not say its release, or there are none.
    public init?<Failure>(kernel: KernelFile, in read: (String) throws(Failure) -> [UInt8]?) throws(Failure) {
        guard let release = Self.release(of: kernel) else { return nil }
        self.release = release
        let directory = "/lib/modules/\(release)"
        guard let list = try read("\(directory)/modules.dep") else { return nil }
        var found: [String: Module] = [:]
        for line in list.split(separator: UInt8(ascii: "\n")) {
            let path = String(decoding: line.prefix { $0 != UInt8(ascii: ":") }, as: UTF8.self)
            let file = Self.lastPart(path)
            guard let name = Self.name(of: file), Self.modules.contains(name), found[name] == nil,
                let bytes = try read(path.hasPrefix("/") ? path : "\(directory)/\(path)")
            else { continue }
            found[name] = Module(file: file) { KernelFile(bytes: bytes, name: path, flag: "--disk") }
        }
        self.found = found
    }

    /// The initramfs; nil if the kernel needs none, having the driver for its disks built in.
    public func make() throws(BootError) -> KernelFile? {
        guard found[Self.diskDriver] != nil else { return nil }
        var archive = CPIOArchive()
        for name in ["dev", "proc", "root", "modules"] { archive.addDirectory(name) }
        archive.addCharacterDevice("dev/console", major: 5, minor: 1)
        archive.addFile("init", Self.program, mode: 0o755)
        var list = ""
        for name in Self.modules {
            guard let module = found[name] else { continue }
            let file = try module.open()
            let place = "modules/" + module.file
            archive.addFile(place, try file.read(at: 0, count: Int(file.size), part: "the module"))
            list += "/\(place)\n"
        }
        archive.addFile("modules/list", Array(list.utf8))
        return KernelFile(bytes: archive.finished(), name: "made for \(release)", flag: "--initrd")
    }

    private static func lastPart(_ path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? path
    }

    /// A module's name by that of its file; nil for other files.
    private static func name(of file: String) -> String? {
        endings.first(where: file.hasSuffix).map { String(file.dropLast($0.count)) }
    }

    /// From the version string that the setup header points to (Linux: Documentation/arch/x86/boot.rst, kernel_version).
    private static func release(of kernel: KernelFile) -> String? {
        let headerEnd = 0x210
        let setupStart = 0x200
        guard kernel.size > headerEnd, let head = try? kernel.head(64 << 10), head.count > headerEnd,
            head[0x202...0x205].elementsEqual("HdrS".utf8)
        else { return nil }
        let start = setupStart + Int(head[0x20E]) + Int(head[0x20F]) << 8
        guard start > setupStart, start < head.count else { return nil }
        let text = String(decoding: head[start...].prefix { $0 > 0x20 && $0 < 0x7F }, as: UTF8.self)
        // It becomes part of a path.
        return text.isEmpty || text.contains("/") || text.hasPrefix(".") ? nil : text
    }

    /// Paths of the modules that are there, by name.
    private static func findModules(in directory: String) -> [String: String] {
        var found: [String: String] = [:]
        var pending = ["\(directory)/kernel"]
        while let place = pending.popLast() {
            guard let stream = opendir(place) else { continue }
            defer { closedir(stream) }
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name.hasPrefix(".") { continue }
                if Int(entry.pointee.d_type) == Int(DT_DIR) { pending.append("\(place)/\(name)") }
                if let module = Self.name(of: name), modules.contains(module) { found[module] = "\(place)/\(name)" }
            }
        }
        return found
    }

    private static var program: [UInt8] {
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var count: UInt32 = 0
        for character in InitProgram.base64.utf8 {
            let value: UInt32
            switch character {
            case 0x41...0x5A: value = UInt32(character - 0x41)
            case 0x61...0x7A: value = UInt32(character - 0x61) + 26
            case 0x30...0x39: value = UInt32(character - 0x30) + 52
            case 0x2B: value = 62
            case 0x2F: value = 63
            default: continue
            }
            bits = bits << 6 | value
            count += 6
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> count))
            }
        }
        return bytes
    }
}
