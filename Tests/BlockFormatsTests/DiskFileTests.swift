import DavitTesting
import Glibc
import Testing

@testable import BlockFormats

/// Disks in files while no machine uses them.
@Suite(.serialized) struct DiskFileTests {
    let directory = try! TemporaryDirectory()

    @Test(
        arguments: [
            (DiskFormat.raw, 16, false, false), (.qcow2, 16, false, false), (.qcow2, 16, true, false),
            (.qcow2, 16, true, true),
            (.qcow2, 9, true, false), (.qcow2, 21, true, false), (.qcow2, 12, true, true),
        ] as [(DiskFormat, UInt32, Bool, Bool)])
    func aCopyIsEqual(format: DiskFormat, clusterBits: UInt32, packs: Bool, isZstd: Bool) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        // It ends in the midst of a cluster.
        let bytes = ForeignFormatTests.contents(seed: seed).dropLast(1536)
        _ = try directory.file("disk.raw", Array(bytes))
        try Tool.run([
            "qemu-img", "convert", "-q", "-f", "raw", "-O", "vmdk", directory["disk.raw"], directory["disk.vmdk"],
        ])
        var options = Qcow2Options()
        options.clusterBits = clusterBits
        options.isZstd = isZstd
        let target = directory["copy.\(format.rawValue)"]
        var last: UInt64 = 0
        try DiskFile.convert(
            directory["disk.vmdk"], DiskOptions(), to: target, format: format, options, packs: packs,
            progress: { last = $0 })
        let size = try DiskFile.information(target, format: format).size
        #expect(last == size)
        let (status, output) = try Tool.start([
            "qemu-img", "compare", "-f", "raw", "-F", format.rawValue, directory["disk.raw"], target,
        ])
        #expect(status == 0, "seed \(seed): \(output)")
        #expect(access(target + ".partial", F_OK) != 0)
        guard format == .qcow2 else { return }
        try Qcow2RandomTests.expectGood(target, seed)
        if packs { #expect(try Tool.run(["qemu-img", "check", target]).contains(" 0.00% compressed") == false) }
        // Packed clusters are written to like others.
        var guest = RandomGuest(size: Int(size), seed: seed)
        let image = try Qcow2RandomTests.open(target)
        guest.model = try image.read(0, Int(size))
        for _ in 0..<100 { #expect(try guest.step(image) == nil, "seed \(seed)") }
        try image.close()
        _ = consume image
        try Qcow2RandomTests.expectGood(target, seed)
    }

    @Test func aCopyThatFailsLeavesNothing() throws {
        _ = try directory.file("disk.raw", [UInt8](repeating: 1, count: 1 << 20))
        var options = DiskOptions()
        options.format = .qcow2
        #expect(throws: DiskError.self) {
            try DiskFile.convert(directory["disk.raw"], options, to: directory["copy.raw"], format: .raw)
        }
        options.format = .raw
        #expect(throws: DiskError.self) {
            try DiskFile.convert(directory["disk.raw"], options, to: directory["copy.vmdk"], format: .vmdk)
        }
        #expect(throws: DiskError.self) {
            try DiskFile.convert(directory["disk.raw"], options, to: directory["disk.raw"], format: .raw)
        }
        #expect(try Tool.run(["ls", directory.path]) == "disk.raw\n")
    }

    @Test(arguments: [(9, "1M", 40), (16, "1M", 600), (16, "600M", 2000), (12, "3M", 5000)] as [(Int, String, UInt64)])
    func aDiskGrows(clusterBits: Int, old: String, megabytes: UInt64) throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=\(1 << clusterBits)", path, old])
        try Tool.run(["qemu-io", "-c", "write -P 0x31 0 1M", path])
        try DiskFile.resize(path, format: nil, to: megabytes << 20)
        try Qcow2RandomTests.expectGood(path, 0)
        #expect(try DiskFile.information(path, format: .qcow2).size == megabytes << 20)
        let image = try Qcow2RandomTests.open(path)
        #expect(try image.read(0, 1 << 20) == [UInt8](repeating: 0x31, count: 1 << 20))
        #expect(try image.read((megabytes - 1) << 20, 1 << 20) == [UInt8](repeating: 0, count: 1 << 20))
        try image.write((megabytes << 20) - 4096, [UInt8](repeating: 0x32, count: 4096))
        try image.close()
        _ = consume image
        try Qcow2RandomTests.expectGood(path, 0)
        let error = #expect(throws: DiskError.self) { try DiskFile.resize(path, format: nil, to: 1 << 20) }
        #expect(error?.reason == .badRequest)
    }

    @Test func aCheckMends() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "64M"])
        _ = try Tool.start(["qemu-io", "-c", "write -P 0x61 1M 3M", "-c", "flush", "-c", "abort", path])
        do { #expect(try DiskFile.check(path, repairs: false).corruptions > 0) }
        do { #expect(try DiskFile.check(path, repairs: true).corruptions == 0) }
        try Qcow2RandomTests.expectGood(path, 0)
        #expect(try Tool.run(["qemu-io", "-r", "-c", "read -P 0x61 1M 3M", path]).contains("failed") == false)
    }

    @Test func anImageTellsOfItself() throws {
        let path = directory["disk.qcow2"]
        try Tool.run([
            "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compression_type=zstd,extended_l2=on", path, "64M",
        ])
        try Tool.run(["qemu-img", "snapshot", "-c", "before", path])
        try Tool.run(["qemu-img", "snapshot", "-c", "after", path])
        let found = try DiskFile.information(path, format: nil)
        #expect(found.format == .qcow2 && found.size == 64 << 20)
        #expect(found.snapshots.map(\.name) == ["before", "after"])
        #expect(found.snapshots.map(\.id) == ["1", "2"])
        #expect(
            found.details.contains { $0 == ("compression", "zstd") }
                && found.details.contains { $0 == ("extended L2", "yes") })
        _ = try directory.file("disk.raw", [UInt8](repeating: 0, count: 1024))
        #expect(try DiskFile.information(directory["disk.raw"], format: nil).size == 1024)
    }
}
