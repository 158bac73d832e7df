import Glibc
import GuestMemory
import Testing

@testable import BootLoaders

@Suite struct KernelFileTests {
    let memory = try! GuestMemory(size: 4 << 20)

    @Test(arguments: [
        (
            "/nonexistent/vmlinuz",
            "--kernel /nonexistent/vmlinuz: cannot open it (No such file or directory): "
                + "give the path of an existing file"
        ),
        ("/tmp", "--kernel /tmp: is a directory: give the path of a file"),
        ("/dev/null", "--kernel /dev/null: is not a regular file: give the path of a file"),
    ])
    func pathsThatAreNoFilesAreRefused(path: String, message: String) {
        let error = #expect(throws: BootError.self) { try KernelFile(path: path, flag: "--kernel") }
        #expect(error?.reason == .unreadable)
        #expect(error?.description == message)
    }

    @Test func anEmptyFileIsRefused() throws {
        let error = #expect(throws: BootError.self) { try TemporaryFile([]).open() }
        #expect(error?.problem == "is empty")
    }

    @Test func aNamedPipeIsRefusedWithoutWaiting() throws {
        let file = try TemporaryFile([])
        unlink(file.path)
        #expect(mkfifo(file.path, 0o600) == 0)
        #expect(throws: BootError.self) { try file.open() }
    }

    @Test func aFileThatShrinksGivesAnError() throws {
        let temporary = try TemporaryFile(TinyBzImage().image.bytes)
        let file = try temporary.open()
        #expect(truncate(temporary.path, 1000) == 0)
        let error = #expect(throws: BootError.self) {
            try BootLoader.load(BootRequest(kernel: file), into: try GuestMemory(size: 64 << 20))
        }
        #expect(error?.reason == .truncated)
    }

    @Test func aFileStaysLoadableAfterItsNameIsGone() throws {
        let temporary = try TemporaryFile(TinyBzImage().image.bytes)
        let file = try temporary.open()
        unlink(temporary.path)
        let memory = try GuestMemory(size: 64 << 20)
        for _ in 0..<2 {
            #expect(throws: Never.self) { try BootLoader.load(BootRequest(kernel: file), into: memory) }
        }
    }

    @Test(
        arguments: [
            ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0], "xz"),
            ([0x28, 0xB5, 0x2F, 0xFD], "zstd"),
            (Array("070701".utf8), "cpio archive"), (Array("#!/bin/sh\n".utf8), "script"),
            (Array("hello".utf8), "text"),
            (Array("MZ".utf8) + [UInt8](repeating: 0, count: 0x36) + Array("ARM\u{64}".utf8), "64-bit ARM"),
            (Array("MZ".utf8) + [UInt8](repeating: 0, count: 100), "EFI"),
            (Array("QFI\u{FB}".unicodeScalars.map { UInt8($0.value) }), "qcow2"),
            ([UInt8](repeating: 0, count: 600), "zeros"),
            ([UInt8](repeating: 0, count: 510) + [0x55, 0xAA], "boot sector"),
            ([0x80, 0x81, 0x82], "unknown kind"), ([0], "zeros"),
        ] as [([UInt8], String)])
    func whatIsNoKernelIsNamed(bytes: [UInt8], word: String) {
        let file = KernelFile(bytes: bytes, name: "thing", flag: "--kernel")
        let error = #expect(throws: BootError.self) { try BootLoader.load(BootRequest(kernel: file), into: memory) }
        #expect(error?.reason == .notAKernel)
        #expect(error?.problem.contains(word) == true, "\(error?.description ?? "")")
    }

    /// A gzip file (RFC 1952) with one stored block (RFC 1951, 3.2.4), as no tool would pack it.
    private func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var crc: UInt32 = 0xFFFF_FFFF
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 != 0 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
        }
        let size = UInt64(bytes.count)
        return [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 3, 1] + TinyELF.little(size, 2) + TinyELF.little(size ^ 0xFFFF, 2)
            + bytes + TinyELF.little(UInt64(~crc), 4) + TinyELF.little(size, 4)
    }

    private func file(_ bytes: [UInt8]) -> KernelFile { KernelFile(bytes: bytes, name: "xen.gz", flag: "--kernel") }

    @Test func aPackedKernelIsUnpacked() throws {
        let plain = MultibootTests.kernel().bytes
        let loaded = try BootLoader.load(BootRequest(kernel: file(gzip(plain))), into: memory)
        #expect(loaded.bootProtocol == .multiboot)
        #expect(loaded.state.rip == 0x10_0002)
    }

    /// Any byte changed or missing is noticed, whether in the header, in the data, in the checksum or in the size.
    @Test func aDamagedPackedKernelIsRefused() {
        let packed = gzip(MultibootTests.kernel().bytes)
        for count in stride(from: 4, to: packed.count, by: 7) {
            #expect(throws: BootError.self, "cut to \(count)") {
                try BootLoader.load(BootRequest(kernel: file(Array(packed.prefix(count)))), into: memory)
            }
        }
        // Flags, time and system (bytes 3 to 9) and the stored block's padding (in byte 10) may be what they like.
        for place in [0, 1, 2, 11, 12] + Array(15..<packed.count) {
            var bytes = packed
            bytes[place] ^= 0x40
            #expect(throws: BootError.self, "byte \(place)") {
                try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
            }
        }
    }

    /// The size that a packed file claims is believed only as far as deflate can reach.
    @Test func aPackedFileThatClaimsTooMuchIsRefusedAtOnce() {
        let bytes = Array(gzip([1, 2, 3]).dropLast(4)) + [0, 0, 0, 0x3F]
        let error = #expect(throws: BootError.self) {
            try BootLoader.load(BootRequest(kernel: file(bytes)), into: memory)
        }
        #expect(error?.problem.contains("gzip") == true)
    }

    /// Who calls a BIOS comes back: each vector leads to code that ends with IRET.
    @Test func realModeInterruptsReturn() throws {
        _ = try BootLoader.load(BootRequest(kernel: file(MultibootTests.kernel().bytes)), into: memory)
        for vector in UInt64(0)..<256 {
            let offset = try memory.read(UInt16.self, at: GuestPhysicalAddress(vector * 4))
            let segment = try memory.read(UInt16.self, at: GuestPhysicalAddress(vector * 4 + 2))
            let code = try memory.readBytes(at: GuestPhysicalAddress(UInt64(segment) << 4 + UInt64(offset)), count: 12)
            #expect(code.contains(0xCF), "INT \(vector)")
        }
        #expect(try memory.read(UInt16.self, at: GuestPhysicalAddress(0x413)) == 639)
    }

    @Test func aMachineWithoutMemoryAbove1MiBIsRefused() throws {
        let tiny = try GuestMemory(size: 1 << 20)
        let error = #expect(throws: BootError.self) {
            try BootLoader.load(BootRequest(kernel: TinyBzImage().file), into: tiny)
        }
        #expect(error?.flag == "--memory")
    }

    @Test func randomBytesNeverTrap() {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var bytes = PVHTests.kernel().bytes
            for _ in 0..<4 {
                bytes[Int.random(in: 4..<232, using: &generator)] = .random(in: .min ... .max, using: &generator)
            }
            let file = KernelFile(bytes: bytes, name: "noise", flag: "--kernel")
            do throws(BootError) { _ = try BootLoader.load(BootRequest(kernel: file), into: memory) } catch {
                #expect(!error.mend.isEmpty)
            }
        }
    }
}

/// A file of its own in /tmp, removed at the end.
private final class TemporaryFile {
    let path: String

    struct Failure: Error {}

    init(_ bytes: [UInt8]) throws {
        var template = Array("/tmp/davit-kernel-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        guard descriptor >= 0 else { throw Failure() }
        defer { close(descriptor) }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else { throw Failure() }
    }

    deinit { unlink(path) }

    func open() throws -> KernelFile { try KernelFile(path: path, flag: "--kernel") }
}
