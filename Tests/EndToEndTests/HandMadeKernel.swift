import Glibc

/// A Multiboot kernel of a few instructions, in a file that goes with it.
final class HandMadeKernel {
    let path: String

    /// 32-bit code, entered with paging and interrupts off, at 1 MiB and behind the header.
    init(code: [UInt8]) {
        // Multiboot 0.6.96, 3.1: magic, flags (bit 16: addresses follow), checksum, header_addr, load_addr, load_end_addr (0: the whole
        // file), bss_end_addr, entry_addr.
        let base: UInt32 = 0x10_0000
        let magic: UInt32 = 0x1BAD_B002
        let flags: UInt32 = 1 << 16
        let header = [magic, flags, 0 &- magic &- flags, base, base, 0, 0, base + 32]
        path = Self.write(header.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } } + code)
    }

    /// Any bytes.
    init(file: [UInt8]) { path = Self.write(file) }

    deinit { unlink(path) }

    private static func write(_ bytes: [UInt8]) -> String {
        var template = Array("/tmp/davit-test-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        _ = Glibc.write(descriptor, bytes, bytes.count)
        close(descriptor)
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
