import Glibc
import Testing

@testable import DavitCommands

/// `davit disk`, as it is typed.
@Suite(.serialized) struct DiskCommandTests {
    /// Runs it, and returns its exit status.
    func davit(_ line: String) -> Int32 { DavitCommand.run(line.split(separator: " ").map(String.init)) }

    @Test func aDiskFromItsMakingToItsCopy() throws {
        var template = Array("/tmp/davit-disk-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        let names = ["a.qcow2", "b.qcow2", "c.raw", "d.qcow2", "x", "e.qcow2"]
        defer {
            for name in names { unlink("\(directory)/\(name)") }
            rmdir(directory)
        }
        #expect(davit("disk create \(directory)/a.qcow2 64M --cluster-size 4K --compression zstd") == 0)
        #expect(davit("disk create \(directory)/a.qcow2 1G") == 66)
        #expect(davit("disk create \(directory)/b.qcow2 --backing a.qcow2") == 0)
        #expect(davit("disk info \(directory)/b.qcow2") == 0)
        #expect(davit("disk check \(directory)/b.qcow2") == 0)
        #expect(davit("disk resize \(directory)/b.qcow2 128M") == 0)
        #expect(davit("disk resize \(directory)/b.qcow2 64M") == 78)
        // What it names as read underneath is followed on request only.
        #expect(davit("disk convert \(directory)/b.qcow2 \(directory)/c.raw") == 78)
        #expect(davit("disk convert --backing \(directory)/b.qcow2 \(directory)/c.raw") == 0)
        var status = stat()
        #expect(stat("\(directory)/c.raw", &status) == 0 && status.st_size == 128 << 20)
        #expect(davit("disk convert --compress \(directory)/c.raw \(directory)/d.qcow2") == 0)
        #expect(davit("disk snapshot list \(directory)/d.qcow2") == 0)
    }

    @Test(
        arguments: [
            ("disk create /tmp/davit-none/a.qcow2 1G", 66), ("disk create /tmp/davit-none 1G", 78),
            ("disk create /tmp/davit-none.qcow2 1X", 78), ("disk create /tmp/davit-none.qcow2", 64),
            ("disk create /tmp/davit-none.qcow2 1G --cluster-size 3K", 78), ("disk create /tmp/davit-none.raw 513", 78),
            ("disk create /tmp/davit-none.vmdk 1G", 65), ("disk create /tmp/davit-none.raw 1G --backing x", 78),
            ("disk info /tmp/davit-none.raw", 66), ("disk info /tmp/davit-none.raw --format nonsense", 78),
            ("disk check /dev/null", 66), ("disk convert /tmp/davit-none.raw /tmp/davit-none.qcow2", 66),
            ("disk resize /tmp/davit-none.raw 1G", 66), ("disk frobnicate", 64),
        ] as [(String, Int32)])
    func mistakesHaveAStatus(line: String, status: Int32) {
        #expect(davit(line) == status, "\(line)")
    }
}
