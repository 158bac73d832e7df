import DavitTesting
import MachineModel
import Testing

@testable import BlockFormats

@Suite struct DiskFormatTests {
    static let qcow2 = Qcow2Header.magic + [0, 0, 0, 3]
    static let nothing = [UInt8](repeating: 0, count: 512)

    @Test(arguments: [
        ("disk.qcow2", Self.qcow2, true, DiskFormat.qcow2), ("a.b/DISK.QCOW2", Self.qcow2, true, .qcow2),
        ("disk.raw", Self.nothing, true, .raw), ("disk.img", Self.nothing, true, .raw),
        ("disk", Self.nothing, false, .raw),
        ("x.vmdk", Array("KDMV".utf8), false, .vmdk), ("x.vhdx", Array("vhdxfile".utf8), false, .vhdx),
    ])
    func nameAndContentThatAgreeDecide(path: String, head: [UInt8], forWriting: Bool, format: DiskFormat) throws {
        #expect(try DiskFormat.find(path, head: head, forWriting: forWriting) == format)
    }

    @Test(arguments: [
        // A guest with a raw disk writes what it likes to its beginning.
        (
            "disk.raw", Self.qcow2,
            "disk.raw: its name says raw, and its content looks like qcow2: say which it is with format=qcow2 or format=raw"
        ),
        (
            "disk.img", Self.qcow2,
            "disk.img: its name says raw, and its content looks like qcow2: say which it is with format=qcow2 or format=raw"
        ),
        (
            "disk", Self.qcow2,
            "disk: its name says no format, and its content looks like qcow2: say which it is with format=qcow2 or format=raw"
        ),
        (
            "disk", Self.nothing,
            "disk: its name says no format, and its content has no format's mark: say which it is with format=raw"
        ),
        (
            "disk.qcow2", Self.nothing,
            "disk.qcow2: its name says qcow2, and its content has no format's mark: say which it is with format=raw or format=qcow2"
        ),
    ])
    func doubtsAreNotDecided(path: String, head: [UInt8], message: String) {
        let error = #expect(throws: DiskError.self) { try DiskFormat.find(path, head: head, forWriting: true) }
        #expect(error?.description == message)
    }

    @Test func aStatedFormatIsObeyed() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.file("disk.img", Self.qcow2 + [UInt8](repeating: 1, count: 1016))
        var options = DiskOptions()
        options.format = .raw
        let image = try ImageOpener(options: options).open(path)
        #expect(try image.read(0, 1024).starts(with: Self.qcow2))
        _ = consume image
        let plain = try directory.file("plain.img", [UInt8](repeating: 1, count: 1024))
        options.format = .qcow2
        let error = #expect(throws: DiskError.self) { try ImageOpener(options: options).open(plain) }
        #expect(
            error?.description == "\(plain): is not a qcow2 image: state the format that it has, such as format=raw")
    }

    @Test(arguments: [
        ("/nonexistent/disk.raw", "cannot open it (No such file or directory): give the path of an existing file"),
        ("/tmp", "cannot open it (Is a directory): give the path of a file"),
        ("/dev/null", "is neither a regular file nor a block device: give one of those"),
    ])
    func filesThatAreNoDisksAreRefused(path: String, message: String) {
        let error = #expect(throws: DiskError.self) { try Disk.open(path) }
        #expect(error?.description == "\(path): \(message)")
    }

    @Test func sizesThatAreNoDisksAreRefused() throws {
        let directory = try TemporaryDirectory()
        for size in [0, 1, 511, 513, 1000] {
            let path = try directory.file("disk.raw", [UInt8](repeating: 0, count: size))
            #expect(throws: DiskError.self) { try Disk.open(path) }
        }
    }
}
