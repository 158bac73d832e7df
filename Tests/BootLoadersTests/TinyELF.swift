@testable import BootLoaders

/// An ELF executable made of parts, to be spoilt by tests.
struct TinyELF {
    struct Segment {
        var type: UInt32 = 1
        var virtualAddress: UInt64?
        var physicalAddress: UInt64
        var contents: [UInt8] = Array("kernel text".utf8)
        /// Nil: as long as the contents.
        var memorySize: UInt64?
        /// Instead of the true one.
        var fileSize: UInt64?
        var fileOffset: UInt64?
    }

    var is64Bit = true
    var machine: UInt16 = 62
    var type: UInt16 = 2
    var byteOrder: UInt8 = 1
    var entry: UInt64 = 0x10_0000
    var programHeaderSize: UInt16?
    var programHeaderCount: UInt16?
    var programHeaderOffset: UInt64?
    var segments: [Segment] = []
    /// What stands between the headers and the segments, such as a Multiboot header.
    var preamble: [UInt8] = []

    /// A note segment that names a PVH entry.
    static func pvhNote(entry: UInt64, size: Int = 4, name: String = "Xen\0") -> Segment {
        Segment(
            type: 4, physicalAddress: 0,
            contents: note(type: 7, name: "GNU\0", [1, 2, 3]) + note(type: 18, name: name, little(entry, size)))
    }

    static func note(type: UInt32, name: String, _ descriptor: [UInt8]) -> [UInt8] {
        func padded(_ bytes: [UInt8]) -> [UInt8] { bytes + [UInt8](repeating: 0, count: -bytes.count & 3) }
        return little(UInt64(name.utf8.count), 4) + little(UInt64(descriptor.count), 4) + little(UInt64(type), 4)
            + padded(Array(name.utf8)) + padded(descriptor)
    }

    static func little(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }

    /// Where the preamble begins.
    var preambleOffset: Int { (is64Bit ? 64 : 52) + segments.count * (is64Bit ? 56 : 32) }

    var bytes: [UInt8] {
        let word = is64Bit ? 8 : 4
        func number(_ value: UInt64, _ count: Int) -> [UInt8] { Self.little(value, count) }
        var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, is64Bit ? 2 : 1, byteOrder, 1] + [UInt8](repeating: 0, count: 9)
        file += number(UInt64(type), 2) + number(UInt64(machine), 2) + number(1, 4)
        file += number(entry, word) + number(programHeaderOffset ?? (is64Bit ? 64 : 52), word) + number(0, word)
        file +=
            number(0, 4) + number(is64Bit ? 64 : 52, 2) + number(UInt64(programHeaderSize ?? (is64Bit ? 56 : 32)), 2)
        file += number(UInt64(programHeaderCount ?? UInt16(segments.count)), 2) + number(0, 6)

        var contents = preamble
        for segment in segments {
            let offset = segment.fileOffset ?? UInt64(preambleOffset + contents.count)
            let fileSize = segment.fileSize ?? UInt64(segment.contents.count)
            let memorySize = segment.memorySize ?? UInt64(segment.contents.count)
            let virtual = segment.virtualAddress ?? segment.physicalAddress
            if is64Bit {
                file += number(UInt64(segment.type), 4) + number(7, 4) + number(offset, 8) + number(virtual, 8)
                file +=
                    number(segment.physicalAddress, 8) + number(fileSize, 8) + number(memorySize, 8) + number(4096, 8)
            } else {
                file += number(UInt64(segment.type), 4) + number(offset, 4) + number(virtual, 4)
                file += number(segment.physicalAddress, 4) + number(fileSize, 4) + number(memorySize, 4) + number(7, 4)
                file += number(4096, 4)
            }
            contents += segment.contents
        }
        return file + contents
    }

    var file: KernelFile { KernelFile(bytes: bytes, name: "vmlinux", flag: "--kernel") }
}
