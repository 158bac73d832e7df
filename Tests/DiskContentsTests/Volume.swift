import DavitTesting
import Glibc
import MachineModel

@testable import DiskContents

/// Disks with file systems on them, made by mke2fs from a directory.
final class Volume {
    let directory = try! TemporaryDirectory()
    var root: String { directory["root"] }

    init(_ files: [String: String] = [:]) throws {
        mkdir(root, 0o755)
        for (path, text) in files { try add(path, Array(text.utf8)) }
    }

    func add(_ path: String, _ bytes: [UInt8]) throws {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
        try Tool.run(["mkdir", "-p", root + "/" + parent])
        _ = try directory.file("root/" + path, bytes)
    }

    func link(_ path: String, to target: String) { symlink(target, root + "/" + path) }

    /// The file system's bytes.
    func image(_ options: [String] = [], size: String = "8M") throws -> [UInt8] {
        let path = directory["image"]
        unlink(path)
        let words = ["/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", root] + options + [path, size]
        try Tool.run(["env", "PATH=/sbin:/usr/sbin:/bin:/usr/bin"] + words)
        return try directory.bytes("image")
    }

    static func disk(_ bytes: [UInt8]) -> MemoryDisk {
        let disk = MemoryDisk(size: bytes.count)
        disk.bytes = bytes
        return disk
    }

    static func files(_ bytes: [UInt8]) throws -> Ext4FileSystem? { try Ext4FileSystem(DiskReader(disk(bytes))) }
}

extension [UInt8] {
    mutating func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        for index in 0..<MemoryLayout<Value>.size {
            self[offset + index] = UInt8(truncatingIfNeeded: value >> (index * 8))
        }
    }

    /// The partition table of a master boot record.
    mutating func putPartitions(_ partitions: [(type: UInt8, first: UInt32, count: UInt32)], at record: Int = 0) {
        for (index, partition) in partitions.enumerated() {
            put(partition.type, at: record + 446 + index * 16 + 4)
            put(partition.first, at: record + 446 + index * 16 + 8)
            put(partition.count, at: record + 446 + index * 16 + 12)
        }
        put(UInt16(0xAA55), at: record + 510)
    }
}
