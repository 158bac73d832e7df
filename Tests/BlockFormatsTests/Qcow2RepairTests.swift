import DavitTesting
import Glibc
import MachineModel
import Testing

@testable import BlockFormats

/// Images whose last writer did not come to its end.
@Suite(.serialized) struct Qcow2RepairTests {
    let directory = try! TemporaryDirectory()

    /// What QEMU leaves when it dies and keeps refcounts lazily: data that nothing counts.
    func makeDirty() throws -> String {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "64M"])
        _ = try Tool.start([
            "qemu-io", "-c", "write -P 0x61 1M 3M", "-c", "write -P 0x62 40M 64k", "-c", "flush", "-c", "abort", path,
        ])
        #expect(try Tool.start(["qemu-img", "check", "-q", path]).status == 2)
        return path
    }

    @Test func lazyRefcountsAreMadeGoodBeforeTheImageIsWritten() throws {
        let path = try makeDirty()
        let image = try Qcow2RandomTests.open(path)
        try image.write(8 << 20, [UInt8](repeating: 0x63, count: 2 << 20))
        #expect(try image.read(1 << 20, 3 << 20) == [UInt8](repeating: 0x61, count: 3 << 20))
        try image.close()
        _ = consume image
        try Qcow2RandomTests.expectGood(path, 0)
        for (pattern, place) in [("0x61", "1M 3M"), ("0x62", "40M 64k"), ("0x63", "8M 2M")] {
            #expect(
                try Tool.run(["qemu-io", "-r", "-c", "read -P \(pattern) \(place)", path]).contains("failed") == false)
        }
        #expect(try Tool.run(["qemu-img", "info", path]).contains("corrupt: false"))
    }

    @Test func aDirtyImageIsReadAsItIs() throws {
        let path = try makeDirty()
        let before = try directory.bytes("disk.qcow2")
        let image = try Qcow2RandomTests.open(path) { $0.isReadOnly = true }
        #expect(try image.read(40 << 20, 512) == [UInt8](repeating: 0x62, count: 512))
        try image.close()
        #expect(try directory.bytes("disk.qcow2") == before)
    }

    @Test func whatAnImageSaysOfItselfAgreesWithQEMU() throws {
        let path = try makeDirty()
        let check = {
            let file = try HostFile(path: path, writable: false)
            return try Qcow2Check.check(file, Qcow2Header.parse(file))
        }
        do {
            let bad = try check()
            #expect(bad.corruptions > 0 && bad.leaks == 0 && !bad.findings.isEmpty)
        }
        try Tool.run(["qemu-img", "check", "-q", "-r", "all", path])
        let good = try check()
        #expect(good.corruptions == 0 && good.leaks == 0, "\(good.findings)")
        #expect(good.dataClusters == 49)
    }

    @Test func leftOverClustersAreFoundAgain() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
        let header = try Qcow2Header.parse(HostFile(path: path, writable: false))
        let file = try HostFile(path: path, writable: true)
        let block = try file.bytes(at: header.refcountTableOffset, count: 8).bigEndian(UInt64.self, at: 0)
        try file.extend(to: 4 << 20)
        // Six clusters that nobody uses, and the mark of a writer that did not come to its end.
        try file.write([0, 1, 0, 1, 0, 1, 0, 3, 0, 1, 0, 1], at: block + 64)
        try file.write([0, 0, 0, 0, 0, 0, 0, 1], at: Qcow2Header.Field.incompatible)
        _ = consume file
        let (status, output) = try Tool.start(["qemu-img", "check", path])
        #expect(status == 3, "\(output)")
        try Qcow2RandomTests.open(path).close()
        try Qcow2RandomTests.expectGood(path, 0)
    }

    @Test func anImageThatCannotBeWrittenIsLeftAlone() throws {
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
        let file = try HostFile(path: path, writable: true)
        let header = try Qcow2Header.parse(file)
        try file.write([0x80, 0, 0, 0, 0, 0, 0, 0], at: header.l1Offset)
        // An L2 table in place of the refcount table.
        var entry: [UInt8] = []
        entry.appendBigEndian(header.refcountTableOffset)
        try file.write(entry, at: header.l1Offset)
        _ = consume file
        let before = try directory.bytes("disk.qcow2")
        for _ in 0..<2 { #expect(throws: DiskError.self) { try Qcow2RandomTests.open(path) } }
        #expect(try directory.bytes("disk.qcow2") == before)
    }

    @Test(arguments: [(9, 0), (9, 6), (10, 3), (12, 4), (16, 4), (16, 2), (21, 5)] as [(UInt32, UInt32)])
    func newImagesAreGood(clusterBits: UInt32, refcountOrder: UInt32) throws {
        let path = directory["new.qcow2"]
        var options = Qcow2Options()
        options.clusterBits = clusterBits
        options.refcountOrder = refcountOrder
        for size in [512, 1 << 20, (1 << 30) + 512] as [UInt64] {
            unlink(path)
            try Qcow2Image.create(path, size: size, options)
            try Qcow2RandomTests.expectGood(path, 0)
            let image = try Qcow2RandomTests.open(path)
            #expect(image.size == size)
            try image.write(size - 512, [UInt8](repeating: 0x55, count: 512))
            try image.close()
            _ = consume image
            try Qcow2RandomTests.expectGood(path, 0)
        }
        #expect(throws: DiskError.self) { try Qcow2Image.create(path, size: 512, options) }
    }

    @Test func kindsOfNewImages() throws {
        var options = Qcow2Options()
        options.version = 2
        try Qcow2Image.create(directory["v2.qcow2"], size: 1 << 20, options)
        options.version = 3
        options.hasExtendedL2 = true
        options.isZstd = true
        options.hasLazyRefcounts = true
        options.backing = ("v2.qcow2", .qcow2)
        try Qcow2Image.create(directory["v3.qcow2"], size: 1 << 20, options)
        let told = try Tool.run(["qemu-img", "info", directory["v3.qcow2"]])
        for fact in [
            "compression type: zstd", "extended l2: true", "lazy refcounts: true", "backing file: v2.qcow2",
            "backing file format: qcow2",
        ] {
            #expect(told.contains(fact), "\(fact) in \(told)")
        }
        #expect(try Tool.run(["qemu-img", "info", directory["v2.qcow2"]]).contains("compat: 0.10"))
        options.version = 2
        #expect(throws: DiskError.self) { try Qcow2Image.create(directory["x"], size: 1 << 20, options) }
    }
}
