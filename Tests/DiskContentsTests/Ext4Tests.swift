import DavitTesting
import Testing

@testable import DiskContents

@Suite struct Ext4Tests {
    private let limit: UInt64 = 64 << 20

    @Test(
        arguments: [
            [], ["-b", "1024"], ["-b", "2048", "-O", "^64bit"], ["-O", "^metadata_csum,^64bit", "-I", "128"],
            ["-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"], ["-O", "^flex_bg"],
            ["-O", "bigalloc", "-C", "16384"],
        ])
    func filesAreReadBack(options: [String]) throws {
        let volume = try Volume(["etc/fstab": "/dev/vda / ext4\n", "boot/empty": ""])
        var random = SeededGenerator(seed: 5)
        let noise = (0..<1_500_007).map { _ in UInt8.random(in: 0...255, using: &random) }
        try volume.add("boot/noise", noise)
        let files = try #require(try Volume.files(try volume.image(options, size: "16M")))
        #expect(try files.file("/boot/noise", limit: limit) == noise)
        #expect(try files.file("etc/fstab", limit: limit) == Array("/dev/vda / ext4\n".utf8))
        #expect(try files.file("/boot/empty", limit: limit) == [])
        #expect(try files.file("/boot/missing", limit: limit) == nil)
        #expect(try files.file("/boot", limit: limit) == nil)
        #expect(try Set(files.names(in: "/boot")) == ["noise", "empty"])
        #expect(throws: DiskContentsError.damaged("/boot/noise is of 1500007 bytes")) {
            try files.file("/boot/noise", limit: 1000)
        }
    }

    /// A file of many pieces has a tree of extents; its holes are zeros.
    @Test func aTreeOfExtents() throws {
        let volume = try Volume()
        var expected = [UInt8](repeating: 0, count: 4 << 20)
        for place in stride(from: 0, to: expected.count, by: 4096) { expected[place] = UInt8(place / 4096 % 251 + 1) }
        try volume.add("sparse", expected)
        try Tool.run(["fallocate", "--dig-holes", volume.root + "/sparse"])
        let bytes = try volume.image(["-b", "1024"], size: "16M")
        let files = try #require(try Volume.files(bytes))
        let inode = try files.find("sparse")
        #expect(inode.hasExtents && inode.map[6] > 0, "the tree has inner nodes")
        #expect(try files.file("sparse", limit: limit) == expected)
    }

    @Test func aDirectoryOfManyNamesAndDeepPaths() throws {
        let volume = try Volume()
        let deep = (0..<40).map { "d\($0)" }.joined(separator: "/")
        try volume.add(deep + "/leaf", Array("deep".utf8))
        for number in 0..<1500 { try volume.directoryFile("many", number) }
        let files = try #require(try Volume.files(try volume.image(["-b", "1024", "-N", "4000"], size: "16M")))
        #expect(try files.names(in: "many").count == 1500)
        #expect(try files.file("many/a-rather-long-name-of-a-file-1234", limit: 10) == Array("1234".utf8))
        #expect(try files.file(deep + "/leaf", limit: 10) == Array("deep".utf8))
    }

    @Test func symbolicLinksAreFollowed() throws {
        let volume = try Volume(["usr/lib/systemd/systemd": "init", "boot/vmlinuz-1": "kernel"])
        volume.link("sbin", to: "usr/sbin")
        mkdirs(volume, "usr/sbin")
        volume.link("usr/sbin/init", to: "/lib/systemd/../systemd/systemd")
        volume.link("lib", to: "usr/lib")
        volume.link("vmlinuz", to: "boot/" + String(repeating: "./", count: 60) + "vmlinuz-1")
        volume.link("loop", to: "loop2/x")
        volume.link("loop2", to: "/loop")
        volume.link("above", to: "../../../boot/vmlinuz-1")
        let files = try #require(try Volume.files(try volume.image()))
        #expect(try files.file("/sbin/init", limit: 10) == Array("init".utf8))
        #expect(try files.file("/vmlinuz", limit: 10) == Array("kernel".utf8))
        #expect(try files.file("/above", limit: 10) == Array("kernel".utf8))
        #expect(throws: DiskContentsError.damaged("/loop is a loop of symbolic links")) {
            try files.file("/loop", limit: 10)
        }
    }

    private func mkdirs(_ volume: Volume, _ path: String) {
        _ = try? Tool.run(["mkdir", "-p", volume.root + "/" + path])
    }

    @Test func whatIsNoExt4IsSaidToBeNone() throws {
        #expect(try Volume.files([UInt8](repeating: 0, count: 8192)) == nil)
        #expect(try Volume.files([UInt8](repeating: 0, count: 512)) == nil)
        let volume = try Volume(["a": "b"])
        let inline = try #require(try Volume.files(try volume.image(["-O", "^extents,^64bit,^metadata_csum"])))
        #expect(throws: DiskContentsError.unsupported("files without extents")) { try inline.file("a", limit: 10) }
        #expect(throws: DiskContentsError.self) { try Volume.files(try volume.image(["-O", "inline_data"])) }
    }

    /// 12: images with random bytes changed, where it hurts. `DAVIT_NOISE_ROUNDS=n` for more, `DAVIT_NOISE_SEED` for others.
    @Test func noiseInHeadersAndTables() throws {
        let volume = try Volume([
            "boot/vmlinuz-1": "kernel", "boot/initrd.img-1": "initrd", "boot/grub/grub.cfg": "linux /boot/x\n",
        ])
        for number in 0..<100 { try volume.directoryFile("sbin", number) }
        volume.link("vmlinuz", to: "boot/vmlinuz-1")
        let good = try volume.image(["-b", "1024"], size: "2M")
        // All that is not empty.
        let places = good.indices.filter { good[$0] != 0 }
        let seed = Noise.seed
        print("seed \(seed)")
        var random = SeededGenerator(seed: seed)
        var found = 0
        let disk = Volume.disk(good)
        for _ in 0..<Noise.rounds {
            var bytes = good
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                let place = (places.randomElement(using: &random) ?? 0) + Int.random(in: 0...3, using: &random)
                if place < bytes.count {
                    bytes[place] = [0, 0xFF, .random(in: 0...255, using: &random)].randomElement(using: &random)!
                }
            }
            disk.bytes = bytes
            do {
                _ = try BootableDisk(disk, device: "/dev/vda", initrdLimit: 1 << 20)
                found += 1
            } catch {}
        }
        #expect(found > 0)
    }
}

extension Volume {
    func directoryFile(_ directory: String, _ number: Int) throws {
        if number == 0 { try add("\(directory)/x", []); try Tool.run(["rm", root + "/\(directory)/x"]) }
        _ = try self.directory.file("root/\(directory)/a-rather-long-name-of-a-file-\(number)", Array("\(number)".utf8))
    }
}
