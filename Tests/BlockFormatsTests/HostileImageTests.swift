import DavitTesting
import Glibc
import MachineModel
import Testing

@testable import BlockFormats

/// Images that lie: nothing ends the process, no other file is opened, and the answer is one clear line.
@Suite(.serialized) struct HostileImageTests {
    let directory = try! TemporaryDirectory()

    func makeQcow2(_ flags: String = "compat=1.1", size: String = "64M", name: String = "disk.qcow2") throws -> String {
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", flags, directory[name], size])
        return directory[name]
    }

    func patch(_ path: String, _ offset: Int, _ bytes: [UInt8]) {
        let descriptor = open(path, O_WRONLY)
        #expect(pwrite(descriptor, bytes, bytes.count, off_t(offset)) == bytes.count)
        close(descriptor)
    }

    func big(_ value: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.appendBigEndian(value)
        return bytes
    }

    func refusal(_ path: String, _ change: (inout DiskOptions) -> Void = { _ in }) -> DiskError? {
        #expect(throws: DiskError.self) { try Qcow2RandomTests.open(path, change) }
    }

    @Test(arguments: [
        (20, [0, 0, 0, 8] as [UInt8]), (20, [0, 0, 0, 22]), (20, [0xFF, 0xFF, 0xFF, 0xFF]),
        (40, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
        (40, [0, 0, 0, 0, 0, 0, 0, 1]), (36, [0x7F, 0xFF, 0xFF, 0xFF]), (36, [0, 0, 0, 0]),
        (24, [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]),
        (24, [0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0]), (48, [0, 0, 0, 0, 0, 0, 2, 0]), (48, [0xFF, 0, 0, 0, 0, 0, 0, 0]),
        (56, [0, 0, 0, 0]), (56, [0xFF, 0xFF, 0xFF, 0xFF]), (60, [0xFF, 0xFF, 0xFF, 0xFF]), (96, [0, 0, 0, 7]),
        (96, [0xFF, 0, 0, 0]),
        (100, [0, 0, 0, 0]), (100, [0xFF, 0xFF, 0xFF, 0xF8]), (72, [0, 0, 0, 0, 0, 0, 0, 0x80]),
        (72, [0, 0, 0, 0, 0, 0, 0, 4]), (72, [0, 0, 0, 0, 0, 0, 0, 2]),
        (4, [0, 0, 0, 1]), (4, [0, 0, 0, 4]), (32, [0, 0, 0, 1]), (24, [0, 0, 0, 0, 0, 0, 0, 0]),
        (48, [0, 0, 0, 0, 0, 0, 0, 0]), (40, [0, 0, 0, 0, 0, 0, 0, 0]), (40, [0, 0, 0, 0, 0, 1, 0, 0]),
    ])
    func aHeaderThatCannotBeIsRefused(offset: Int, bytes: [UInt8]) throws {
        let path = try makeQcow2()
        patch(path, offset, bytes)
        let error = try #require(refusal(path))
        #expect(error.description.hasPrefix("\(path): ") && !error.mend.isEmpty)
        #expect([.malformed, .unsupported, .truncated].contains(error.reason), "\(error)")
    }

    @Test func tablesThatLieOverOneAnotherAreNotWritten() throws {
        let path = try makeQcow2()
        let header = try Qcow2Header.parse(HostFile(path: path, writable: false))
        // An L2 table in place of the header, of the L1 table, of the refcount table and of its block.
        let file = try directory.bytes("disk.qcow2")
        let block = file.bigEndian(UInt64.self, at: Int(header.refcountTableOffset))
        for place in [header.l1Offset, header.refcountTableOffset, block] {
            patch(path, Int(header.l1Offset), big(place | Qcow2Entry.copiedFlag))
            #expect(refusal(path)?.reason == .malformed, "place \(place)")
        }
        // Two L2 tables in one place.
        patch(path, Int(header.l1Offset), big(UInt64(0x80000) | Qcow2Entry.copiedFlag))
        let two = try makeQcow2(size: "2G", name: "two.qcow2")
        patch(
            two, Int(header.l1Offset),
            big(UInt64(0x80000) | Qcow2Entry.copiedFlag) + big(UInt64(0x80000) | Qcow2Entry.copiedFlag))
        #expect(refusal(two)?.reason == .malformed)
        // Two refcount blocks in one place.
        let blocks = try makeQcow2(name: "blocks.qcow2")
        patch(blocks, Int(header.refcountTableOffset), big(block) + big(block))
        #expect(refusal(blocks)?.reason == .malformed)
    }

    @Test func dataOverTablesAreNotWritten() throws {
        let path = try makeQcow2()
        let image = try Qcow2RandomTests.open(path)
        try image.write(0, [UInt8](repeating: 1, count: 512))
        try image.close()
        _ = consume image
        let header = try Qcow2Header.parse(HostFile(path: path, writable: false))
        let before = try directory.bytes("disk.qcow2")
        let table = Int(before.bigEndian(UInt64.self, at: Int(header.l1Offset)) & Qcow2Entry.offsetMask)
        for place in [0, header.l1Offset, header.refcountTableOffset, UInt64(table), 1 << 40] {
            patch(path, table, big(place | Qcow2Entry.copiedFlag))
            let image = try Qcow2RandomTests.open(path)
            if place == 0 {
                // No place at all: the guest gets a new cluster.
                try image.write(0, [UInt8](repeating: 7, count: 512))
                #expect(try image.read(0, 512) == [UInt8](repeating: 7, count: 512))
            } else {
                #expect(throws: BlockError.self) { try image.write(0, [UInt8](repeating: 7, count: 65536)) }
            }
            try image.close()
            let after = try directory.bytes("disk.qcow2")
            #expect(after[..<65536].elementsEqual(before[..<65536]))
        }
    }

    @Test func aFreeClusterThatIsNotFreeIsNotGivenOut() throws {
        let path = try makeQcow2()
        let header = try Qcow2Header.parse(HostFile(path: path, writable: false))
        let block = try directory.bytes("disk.qcow2").bigEndian(UInt64.self, at: Int(header.refcountTableOffset))
        patch(path, Int(block), [UInt8](repeating: 0, count: 65536))
        let image = try Qcow2RandomTests.open(path)
        #expect(throws: BlockError.corrupt("refcounts")) { try image.write(0, [UInt8](repeating: 7, count: 512)) }
    }

    @Test func aBackingFileIsFollowedOnlyIfTheUserSaysSo() throws {
        _ = try directory.file("secret.raw", [UInt8](repeating: 0x53, count: 65536))
        try Tool.run([
            "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret.raw", directory["disk.qcow2"],
        ])
        let path = directory["disk.qcow2"]
        let error = refusal(path)
        #expect(error?.reason == .backingNotAllowed)
        #expect(error?.description.contains("secret.raw") == true && error?.description.contains("backing=on") == true)
        let image = try Qcow2RandomTests.open(path) { $0.followsBackingFiles = true }
        #expect(try image.read(0, 512) == [UInt8](repeating: 0x53, count: 512))
        _ = consume image
        unlink(directory["secret.raw"])
        let gone = refusal(path) { $0.followsBackingFiles = true }
        #expect(
            gone?.description
                == "\(directory["secret.raw"]): cannot open it (No such file or directory): give the path of an existing file"
        )
    }

    @Test func aRawFileUnderneathIsNotTakenForAnotherFormat() throws {
        // A guest wrote a header with a backing file into its raw disk; the image above does not say that it is raw.
        try Tool.run([
            "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", directory["below.raw"],
            "64K",
        ])
        let path = try makeQcow2()
        try Tool.run(["qemu-img", "rebase", "-q", "-u", "-b", "below.raw", "-F", "raw", path])
        let bytes = try directory.bytes("disk.qcow2")
        let mark = big(UInt32(0xE279_2ACA))
        let at = try #require((0..<512).first { Array(bytes[$0..<$0 + 4]) == mark })
        patch(path, at, [0x12, 0x34, 0x56, 0x78])
        #expect(refusal(path) { $0.followsBackingFiles = true }?.reason == .formatNotStated)
    }

    @Test func anImageThatIsItsOwnBackingFileIsRefused() throws {
        let path = try makeQcow2()
        try Tool.run(["qemu-img", "rebase", "-q", "-u", "-b", "disk.qcow2", "-F", "qcow2", path])
        #expect(refusal(path) { $0.followsBackingFiles = true }?.problem == "is its own backing file")
        let other = try makeQcow2(name: "other.qcow2")
        try Tool.run(["qemu-img", "rebase", "-q", "-u", "-b", "other.qcow2", "-F", "qcow2", path])
        try Tool.run(["qemu-img", "rebase", "-q", "-u", "-b", "disk.qcow2", "-F", "qcow2", other])
        #expect(refusal(path) { $0.followsBackingFiles = true }?.problem == "is its own backing file")
        #expect(
            refusal(path) {
                $0.followsBackingFiles = true
                $0.isReadOnly = true
            }?.problem == "is its own backing file")
    }

    @Test func aFileCutShortGivesErrorsAndNoDamage() throws {
        let path = try makeQcow2()
        let image = try Qcow2RandomTests.open(path)
        try image.write(0, [UInt8](repeating: 1, count: 4 << 20))
        try image.flush()
        #expect(truncate(path, 1 << 20) == 0)
        #expect(throws: BlockError.truncated) { try image.read(3 << 20, 4096) }
        #expect(try image.read(0, 4096) == [UInt8](repeating: 1, count: 4096))
        let raw = try directory.file("disk.raw", [UInt8](repeating: 5, count: 1 << 20))
        let disk = try RawImage(HostFile(path: raw, writable: true))
        #expect(truncate(raw, 4096) == 0)
        #expect(throws: BlockError.truncated) { try disk.read(8192, 4096) }
    }

    /// Headers and tables with random bytes changed, in every format. Errors are as good as data; only ending is not.
    @Test func noiseInHeadersAndTablesEndsNothing() throws {
        let seed = number("DAVIT_NOISE_SEED") ?? UInt64.random(in: 0...UInt64.max)
        let rounds = Int(number("DAVIT_NOISE_ROUNDS") ?? 280)
        print("noise in images: seed \(seed)")
        var random = SeededGenerator(seed: seed)
        _ = try directory.file("disk.raw", ForeignFormatTests.contents(seed: seed))
        var samples: [(name: String, bytes: [UInt8])] = []
        for (number, (format, flags)) in [
            ("qcow2", ["-o", "cluster_size=4096"]), ("qcow2", ["-c", "-o", "compression_type=zstd,cluster_size=16k"]),
            ("qcow2", ["-c", "-o", "compat=0.10,cluster_size=512"]),
            ("qcow2", ["-o", "extended_l2=on,cluster_size=16k"]),
            ("vmdk", []), ("vmdk", ["-o", "subformat=streamOptimized"]), ("vhdx", []),
        ].enumerated() {
            let name = "sample\(number).\(format)"
            try ForeignFormatTests.convert(directory, format, flags, to: name)
            if format == "qcow2" { try Tool.run(["qemu-img", "snapshot", "-c", "old", directory[name]]) }
            var bytes = try directory.bytes(name)
            // QEMU leaves no log behind; one of ours has entries to be damaged.
            if format == "vhdx" {
                VHDXLogWriter(place: 4 << 20, sector: [UInt8](repeating: 9, count: 4096)).apply(to: &bytes)
            }
            samples.append((name, bytes))
        }
        for round in 0..<rounds {
            let (name, good) = samples[round % samples.count]
            var bytes = good
            let area = Bool.random(using: &random) ? 512 : min(bytes.count, 512 << 10)
            for _ in 0..<Int.random(in: 1...12, using: &random) {
                let at = Int.random(in: 0..<area, using: &random)
                bytes[at] = [0, 0xFF, 0x80, .random(in: 0...255, using: &random)].randomElement(using: &random)!
            }
            // Sums that do not fit would hide all that is behind them.
            if name.hasSuffix("vhdx") { for place in [0x10000, 0x20000] { reseal(&bytes, place, 4096) } }
            if name.hasSuffix("vhdx") { for place in [0x30000, 0x40000] { reseal(&bytes, place, 65536) } }
            let path = try directory.file("noise-\(name)", bytes)
            try use(path, name, &random)
        }
    }

    /// What the environment says; `make fuzz-disks` sets it.
    private func number(_ variable: String) -> UInt64? { getenv(variable).flatMap { UInt64(String(cString: $0)) } }

    private func reseal(_ bytes: inout [UInt8], _ place: Int, _ count: Int) {
        var part = Array(bytes[place..<place + count])
        part.replaceSubrange(4..<8, with: [0, 0, 0, 0])
        let sum = CRC32C.of(part)
        for index in 0..<4 { bytes[place + 4 + index] = UInt8(truncatingIfNeeded: sum >> (index * 8)) }
    }

    private func use(_ path: String, _ name: String, _ random: inout SeededGenerator) throws {
        for mode in ["read", "write", "snapshot"] where mode == "read" || name.hasSuffix("qcow2") {
            var options = DiskOptions()
            options.format = name.hasSuffix("qcow2") ? .qcow2 : name.hasSuffix("vmdk") ? .vmdk : .vhdx
            options.isReadOnly = mode != "write"
            options.snapshot = mode == "snapshot" ? "old" : nil
            options.cache = .unsafe
            do throws(DiskError) {
                let image = try ImageOpener(options: options).open(path)
                for _ in 0..<16 {
                    let count = Int.random(in: 1...64, using: &random) * 512
                    guard image.size > UInt64(count) else { break }
                    let limit = Bool.random(using: &random) ? min(image.size, 8 << 20) : image.size
                    let at =
                        UInt64.random(in: 0...(max(limit, UInt64(count)) - UInt64(count)) / 512, using: &random) * 512
                    _ = try? image.read(at, count)
                    guard mode == "write" else { continue }
                    _ = try? image.write(at, [UInt8](repeating: 0xA5, count: count))
                    _ = try? image.discard(at: at, count: UInt64(count))
                    _ = try? image.writeZeroes(at: at, count: UInt64(count), mayUnmap: true)
                    _ = try? image.flush()
                }
                if mode == "read", name.hasSuffix("qcow2") {
                    let file = try HostFile(path: path, writable: false)
                    _ = try Qcow2Check.check(file, try Qcow2Header.parse(file))
                }
                _ = try? image.close()
            } catch {
                #expect(!error.mend.isEmpty && !error.description.contains("\n"))
            }
        }
    }
}
