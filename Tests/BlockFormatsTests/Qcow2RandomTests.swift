import DavitTesting
import Glibc
import MachineModel
import Testing

@testable import BlockFormats

/// Random operations on images of every kind, compared with memory, and in the end with QEMU's view of the file.
@Suite(.serialized) struct Qcow2RandomTests {
    /// What `qemu-img create -o` is told.
    static let kinds = [
        "compat=1.1", "compat=0.10", "compat=1.1,cluster_size=512", "compat=0.10,cluster_size=1024",
        "compat=1.1,cluster_size=4096,refcount_bits=1", "cluster_size=512,refcount_bits=64", "refcount_bits=2",
        "cluster_size=2048,refcount_bits=4", "refcount_bits=8", "refcount_bits=32,cluster_size=1024",
        "cluster_size=2M", "extended_l2=on", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on",
        "compression_type=zstd", "preallocation=metadata", "preallocation=metadata,extended_l2=on",
        "preallocation=falloc,cluster_size=4k",
    ]
    static let size = 12 << 20

    static func open(_ path: String, _ change: (inout DiskOptions) -> Void = { _ in }) throws -> any DiskImage {
        var options = DiskOptions()
        options.format = .qcow2
        change(&options)
        return try ImageOpener(options: options).open(path)
    }

    static func expectGood(_ path: String, _ seed: UInt64) throws {
        let (status, output) = try Tool.start(["qemu-img", "check", "-f", "qcow2", path])
        #expect(status == 0, "seed \(seed): \(output)")
    }

    @Test(arguments: kinds) func agreesWithMemoryAndWithQEMU(kind: String) throws {
        let directory = try TemporaryDirectory()
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", kind, path, "\(Self.size)"])
        try run(directory, path, backing: nil) { _ in }
    }

    @Test(arguments: [
        "compat=1.1", "compat=0.10", "cluster_size=512", "extended_l2=on", "extended_l2=on,cluster_size=16k",
        "cluster_size=2M",
    ])
    func readsWhatIsUnderneath(kind: String) throws {
        let directory = try TemporaryDirectory()
        let path = directory["disk.qcow2"]
        // Shorter than the disk above, and compressed, so that both ends are met.
        let below = (0..<Self.size / 2 / 512).flatMap { [UInt8](repeating: UInt8($0 % 251), count: 512) }
        let raw = try directory.file("below.raw", below)
        try Tool.run(["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", raw, directory["below.qcow2"]])
        try Tool.run([
            "qemu-img", "create", "-q", "-f", "qcow2", "-o", kind, "-F", "qcow2", "-b", "below.qcow2", path,
            "\(Self.size)",
        ])
        try run(directory, path, backing: below) { $0.followsBackingFiles = true }
        #expect(try directory.bytes("below.raw") == below)
    }

    @Test(arguments: [CacheMode.none, .unsafe]) func agreesInEveryCacheMode(cache: CacheMode) throws {
        let directory = try TemporaryDirectory()
        let path = directory["disk.qcow2"]
        try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "\(Self.size)"])
        try run(directory, path, backing: nil) { $0.cache = cache }
    }

    @Test func leavesASnapshotAsItWas() throws {
        for kind in ["compat=1.1", "compat=0.10,cluster_size=4096", "extended_l2=on"] {
            let directory = try TemporaryDirectory()
            let path = directory["disk.qcow2"]
            try Tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", kind, path, "\(Self.size)"])
            let seed = UInt64.random(in: 0...UInt64.max)
            var guest = RandomGuest(size: Self.size, seed: seed)
            var frozen: [(name: String, bytes: [UInt8])] = []
            for name in ["one", "two", "three"] {
                let image = try Self.open(path)
                for _ in 0..<100 { #expect(try guest.step(image) == nil, "seed \(seed)") }
                try image.close()
                frozen.append((name, guest.model))
                _ = consume image
                try Tool.run(["qemu-img", "snapshot", "-c", name, path])
            }
            let image = try Self.open(path)
            for _ in 0..<100 { #expect(try guest.step(image) == nil, "seed \(seed)") }
            try image.close()
            _ = consume image
            try Self.expectGood(path, seed)
            for (name, bytes) in frozen {
                let old = try Self.open(path) {
                    $0.snapshot = name
                    $0.isReadOnly = true
                }
                #expect(try old.read(0, Self.size) == bytes, "seed \(seed), snapshot \(name)")
            }
        }
    }

    private func run(
        _ directory: TemporaryDirectory, _ path: String, backing: [UInt8]?, _ change: (inout DiskOptions) -> Void
    ) throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        var guest = RandomGuest(size: Self.size, seed: seed)
        if let backing { guest.model.replaceSubrange(0..<backing.count, with: backing) }
        for _ in 0..<4 {
            let image = try Self.open(path, change)
            for _ in 0..<100 {
                let fault = try guest.step(image)
                #expect(fault == nil, "seed \(seed)")
                if fault != nil { return }
            }
            try image.close()
        }
        try Self.expectGood(path, seed)
        let raw = try directory.file("model.raw", guest.model)
        let (status, output) = try Tool.start(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, raw])
        #expect(status == 0, "seed \(seed): \(output)")
    }
}
