import Glibc
import Testing

@testable import BootLoaders

@Suite struct InitramfsTests {
    /// A directory with a kernel that says its release, and files that pass for its modules.
    private func makeKernel(_ modules: [String]) throws -> KernelFile {
        let place = "/tmp/davit-initramfs-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
        var head = [UInt8](repeating: 0, count: 4096)
        head.replaceSubrange(0x202..<0x206, with: "HdrS".utf8)
        head[0x20E] = 0x00
        head[0x20F] = 0x04
        let release = "6.1.0-test (builder) #1"
        head.replaceSubrange(0x600..<0x600 + release.utf8.count, with: release.utf8)
        for directory in [
            "", "/modules", "/modules/6.1.0-test", "/modules/6.1.0-test/kernel", "/modules/6.1.0-test/kernel/a",
        ] {
            mkdir(place + directory, 0o755)
        }
        for module in modules { try write(Array(module.utf8), to: "\(place)/modules/6.1.0-test/kernel/a/\(module)") }
        try write(head, to: "\(place)/vmlinuz")
        return try KernelFile(path: "\(place)/vmlinuz", flag: "--kernel")
    }

    private func write(_ bytes: [UInt8], to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        try #require(descriptor >= 0 && Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
        close(descriptor)
    }

    /// Names and contents, as Linux unpacks them.
    private func unpack(_ archive: [UInt8]) -> [String: [UInt8]] {
        var files: [String: [UInt8]] = [:]
        var place = 0
        while place + 110 <= archive.count {
            func field(_ index: Int) -> Int {
                let start = place + 6 + index * 8
                return Int(String(decoding: archive[start..<start + 8], as: UTF8.self), radix: 16) ?? 0
            }
            #expect(archive[place..<place + 6].elementsEqual("070701".utf8))
            let (size, nameSize) = (field(6), field(11))
            let name = String(decoding: archive[place + 110..<place + 110 + nameSize - 1], as: UTF8.self)
            let start = (place + 110 + nameSize + 3) & ~3
            files[name] = Array(archive[start..<start + size])
            place = (start + size + 3) & ~3
        }
        return files
    }

    @Test func modulesOfAFileSystemThatIsNotTheHosts() throws {
        let files = [
            "/lib/modules/6.1.0-test/modules.dep":
                "kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko\nkernel/a/virtio_blk.ko.xz: kernel/a/virtio.ko\nkernel/a/virtio.ko:\nx.ko:\n",
            "/lib/modules/6.1.0-test/kernel/a/virtio_blk.ko.xz": "blk",
            "/lib/modules/6.1.0-test/kernel/a/virtio.ko": "virtio",
        ]
        let maker = try #require(try InitramfsMaker(kernel: makeKernel([])) { files[$0].map { Array($0.utf8) } })
        let made = try #require(try maker.make())
        let unpacked = unpack(try made.read(at: 0, count: Int(made.size), part: "all"))
        // ext4.ko is listed, and is not there.
        #expect(unpacked["modules/list"] == Array("/modules/virtio.ko\n/modules/virtio_blk.ko.xz\n".utf8))
        #expect(unpacked["modules/virtio_blk.ko.xz"] == Array("blk".utf8))
        #expect(try InitramfsMaker(kernel: makeKernel([]), in: { _ in nil }) == nil)
    }

    @Test func modulesAreTakenInOrderOfDependence() throws {
        let kernel = try makeKernel(["virtio_blk.ko", "virtio.ko.xz", "virtio_ring.ko", "snd.ko"])
        let maker = try #require(InitramfsMaker(kernel: kernel))
        #expect(maker.release == "6.1.0-test")
        let made = try #require(try maker.make())
        let files = unpack(try made.read(at: 0, count: Int(made.size), part: "all"))
        #expect(
            files["modules/list"]
                == Array("/modules/virtio_ring.ko\n/modules/virtio.ko.xz\n/modules/virtio_blk.ko\n".utf8))
        #expect(files["modules/virtio_blk.ko"] == Array("virtio_blk.ko".utf8))
        #expect(files["modules/snd.ko"] == nil && files["TRAILER!!!"] != nil && files["dev/console"] != nil)
        let program = try #require(files["init"])
        #expect(program.starts(with: [0x7F, 0x45, 0x4C, 0x46, 2]))
    }

    @Test func aKernelWithItsDiskDriverBuiltInNeedsNone() throws {
        let kernel = try makeKernel(["virtio_net.ko"])
        let maker = try #require(InitramfsMaker(kernel: kernel))
        #expect(try maker.make() == nil)
    }

    @Test func aFileThatIsNoKernelHasNone() {
        #expect(
            InitramfsMaker(kernel: KernelFile(bytes: [UInt8](repeating: 1, count: 5000), name: "x", flag: "--kernel"))
                == nil)
    }
}
