import DavitTesting
import Glibc
import MachineModel
import Testing

@testable import BlockFormats

/// Images that other programs made read as these programs read them.
@Suite(.serialized) struct ForeignFormatTests {
    static let size = 8 << 20

    /// A disk with stretches of data, of zeros, and of what packs badly.
    static func contents(seed: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        var bytes: [UInt8] = []
        while bytes.count < size {
            let count = Int.random(in: 1...600, using: &random) * 512
            switch Int.random(in: 0..<3, using: &random) {
            case 0: bytes += [UInt8](repeating: 0, count: count)
            case 1: bytes += [UInt8](repeating: .random(in: 1...255, using: &random), count: count)
            default: bytes += (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
            }
        }
        return Array(bytes.prefix(size))
    }

    static func convert(_ directory: TemporaryDirectory, _ format: String, _ flags: [String], to name: String) throws {
        try Tool.run(
            ["qemu-img", "convert", "-q", "-f", "raw", "-O", format] + flags + [directory["disk.raw"], directory[name]])
    }

    func expectEqual(_ path: String, _ bytes: [UInt8], _ seed: UInt64) throws {
        var options = DiskOptions()
        options.isReadOnly = true
        let image = try ImageOpener(options: options).open(path)
        #expect(image.size == UInt64(bytes.count))
        #expect(try image.read(0, bytes.count) == bytes, "seed \(seed)")
        var random = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            let start = Int.random(in: 0..<bytes.count / 512, using: &random) * 512
            let count = min(Int.random(in: 1...300, using: &random) * 512, bytes.count - start)
            #expect(try image.read(UInt64(start), count) == Array(bytes[start..<start + count]), "seed \(seed)")
        }
        #expect(throws: BlockError.readOnly) { try image.write(0, [UInt8](repeating: 1, count: 512)) }
    }

    @Test(arguments: [
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized",
    ])
    func readsVMDK(kind: String) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let directory = try TemporaryDirectory()
        let bytes = Self.contents(seed: seed)
        _ = try directory.file("disk.raw", bytes)
        try Self.convert(directory, "vmdk", ["-o", "subformat=\(kind)"], to: "disk.vmdk")
        try expectEqual(directory["disk.vmdk"], bytes, seed)
    }

    @Test(arguments: ["subformat=dynamic", "subformat=fixed", "subformat=dynamic,block_size=1M", "block_size=32M"])
    func readsVHDX(kind: String) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let directory = try TemporaryDirectory()
        let bytes = Self.contents(seed: seed)
        _ = try directory.file("disk.raw", bytes)
        try Self.convert(directory, "vhdx", ["-o", kind], to: "disk.vhdx")
        try expectEqual(directory["disk.vhdx"], bytes, seed)
    }

    @Test(arguments: [
        [], ["-c"], ["-c", "-o", "compression_type=zstd"], ["-o", "compat=0.10"], ["-c", "-o", "compat=0.10"],
        ["-o", "extended_l2=on"], ["-o", "cluster_size=512"], ["-c", "-o", "cluster_size=2M"],
        ["-c", "-o", "cluster_size=512"], ["-o", "preallocation=full"], ["-o", "refcount_bits=1"],
    ])
    func readsQcow2(flags: [String]) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let directory = try TemporaryDirectory()
        let bytes = Self.contents(seed: seed)
        _ = try directory.file("disk.raw", bytes)
        try Self.convert(directory, "qcow2", flags, to: "disk.qcow2")
        try expectEqual(directory["disk.qcow2"], bytes, seed)
    }

    @Test func carriesOutAVHDXLogAsQEMUDoes() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        let directory = try TemporaryDirectory()
        var bytes = Self.contents(seed: seed)
        bytes.replaceSubrange(0..<4096, with: [UInt8](repeating: 0x11, count: 4096))
        _ = try directory.file("disk.raw", bytes)
        try Self.convert(directory, "vhdx", ["-o", "subformat=fixed"], to: "disk.vhdx")
        var file = try directory.bytes("disk.vhdx")
        // In a fixed image of one run the disk's bytes lie in one piece.
        let place = try #require(
            (0..<file.count / (1 << 20)).map { $0 << 20 }.first { file[$0..<$0 + 8192].elementsEqual(bytes[..<8192]) })
        let sector = (0..<4096).map { UInt8(truncatingIfNeeded: $0 * 7 + 3) }
        VHDXLogWriter(place: UInt64(place), sector: sector).apply(to: &file)
        _ = try directory.file("disk.vhdx", file)
        bytes.replaceSubrange(0..<4096, with: sector)
        bytes.replaceSubrange(4096..<8192, with: [UInt8](repeating: 0, count: 4096))
        try expectEqual(directory["disk.vhdx"], bytes, seed)
        #expect(try directory.bytes("disk.vhdx") == file)

        // QEMU carries it out in the file.
        _ = try Tool.start(["qemu-img", "check", "-r", "all", directory["disk.vhdx"]])
        let raw = try directory.file("model.raw", bytes)
        let (status, output) = try Tool.start([
            "qemu-img", "compare", "-f", "vhdx", "-F", "raw", directory["disk.vhdx"], raw,
        ])
        #expect(status == 0, "\(output)")
        #expect(try directory.bytes("disk.vhdx") != file)
    }

    @Test func aDamagedVHDXLogIsRefused() throws {
        let directory = try TemporaryDirectory()
        _ = try directory.file("disk.raw", Self.contents(seed: 1))
        try Self.convert(directory, "vhdx", [], to: "disk.vhdx")
        var file = try directory.bytes("disk.vhdx")
        let log = VHDXLogWriter(place: 4 << 20, sector: [UInt8](repeating: 1, count: 4096)).apply(to: &file)
        file[log + 100] ^= 1
        let path = try directory.file("disk.vhdx", file)
        let error = #expect(throws: DiskError.self) { try VHDXImage(HostFile(path: path, writable: false)) }
        #expect(error?.reason == .malformed)
    }

    @Test func anExtentElsewhereIsNotFollowed() throws {
        let directory = try TemporaryDirectory()
        for (name, reason) in [
            ("/etc/passwd", DiskError.Reason.backingNotAllowed), ("../x", .backingNotAllowed),
            ("link", .backingNotAllowed),
            ("missing", .unreadable),
        ] {
            symlink("/etc/passwd", directory["link"])
            let text = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\nRW 1 FLAT \"\(name)\" 0\n"
            let path = try directory.file("disk.vmdk", Array(text.utf8))
            let error = #expect(throws: DiskError.self) { try VMDK.open(HostFile(path: path, writable: false)) }
            #expect(error?.reason == reason, "\(name)")
        }
    }

    @Test func whatIsOnlyADifferenceIsRefused() throws {
        let directory = try TemporaryDirectory()
        let text = "# Disk DescriptorFile\nCID=1\nparentCID=12345678\nRW 8 ZERO\n"
        let path = try directory.file("disk.vmdk", Array(text.utf8))
        let error = #expect(throws: DiskError.self) { try VMDK.open(HostFile(path: path, writable: false)) }
        #expect(error?.reason == .unsupported)
    }
}

/// Puts a log of one entry into a VHDX file, which replaces a sector and clears the next ([MS-VHDX] 2.3.1).
struct VHDXLogWriter {
    let place: UInt64
    let sector: [UInt8]

    /// Returns where the log begins.
    @discardableResult
    func apply(to file: inout [UInt8]) -> Int {
        let guid = (1...16).map { UInt8($0) }
        let current =
            file.littleEndian(UInt64.self, at: 0x10008) > file.littleEndian(UInt64.self, at: 0x20008)
            ? 0x10000 : 0x20000
        var header = Array(file[current..<current + 4096])
        put(guid, in: &header, at: 48)
        put(little(file.littleEndian(UInt64.self, at: current + 8) + 1), in: &header, at: 8)
        seal(&header)
        put(header, in: &file, at: current == 0x10000 ? 0x20000 : 0x10000)

        let log = Int(header.littleEndian(UInt64.self, at: 72))
        let sequence: UInt64 = 7
        var entry = [UInt8](repeating: 0, count: 8192)
        put(Array("loge".utf8), in: &entry, at: 0)
        put(little(UInt32(8192)), in: &entry, at: 8)
        put(little(sequence), in: &entry, at: 16)
        put(little(UInt32(2)), in: &entry, at: 24)
        put(guid, in: &entry, at: 32)
        put(little(UInt64(file.count)), in: &entry, at: 48)
        put(little(UInt64(file.count)), in: &entry, at: 56)
        put(Array("desc".utf8) + sector[4092...] + sector[..<8] + little(place) + little(sequence), in: &entry, at: 64)
        put(
            Array("zero".utf8) + [0, 0, 0, 0] + little(UInt64(4096)) + little(place + 4096) + little(sequence),
            in: &entry, at: 96)
        put(Array("data".utf8) + little(UInt32(0)) + sector[8..<4092] + little(UInt32(sequence)), in: &entry, at: 4096)
        seal(&entry)
        put(entry, in: &file, at: log)
        return log
    }

    private func put(_ bytes: [UInt8], in target: inout [UInt8], at offset: Int) {
        target.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    private func little(_ value: some FixedWidthInteger) -> [UInt8] {
        (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }

    private func seal(_ structure: inout [UInt8]) {
        put([0, 0, 0, 0], in: &structure, at: 4)
        put(little(CRC32C.of(structure)), in: &structure, at: 4)
    }
}
