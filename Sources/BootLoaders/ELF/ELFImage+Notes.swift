extension ELFImage {
    /// Xen's note that names the 32-bit physical entry (Xen, public/elfnote.h).
    private static let XEN_ELFNOTE_PHYS32_ENTRY: UInt32 = 18
    /// Notes of real kernels take some hundred bytes.
    private static let largestNotes: UInt64 = 1 << 20

    /// The entry that the PVH note gives, or nil if there is no such note.
    func pvhEntry() throws(BootError) -> UInt32? {
        for segment in segments where segment.type == Self.PT_NOTE {
            guard segment.fileSize <= Self.largestNotes else {
                throw file.source.malformed("has ELF notes of \(segment.fileSize) bytes")
            }
            let notes = ByteImage(
                try file.read(at: segment.fileOffset, count: Int(segment.fileSize), part: "the ELF notes"))
            guard let entry = try pvhEntry(in: notes) else { continue }
            guard isLoaded(physical: UInt64(entry)) else {
                throw file.source.malformed(
                    "has a PVH note with the entry 0x\(String(entry, radix: 16)), which no segment holds")
            }
            return entry
        }
        return nil
    }

    /// Walks the notes: sizes of name and descriptor and a type, then both, each padded to 4 bytes.
    private func pvhEntry(in notes: ByteImage) throws(BootError) -> UInt32? {
        let count = notes.bytes.count
        var offset = 0
        while count - offset >= 12 {
            let nameSize = Int(notes.read(UInt32.self, at: offset))
            let descriptorSize = Int(notes.read(UInt32.self, at: offset + 4))
            let type = notes.read(UInt32.self, at: offset + 8)
            let name = offset + 12
            // Each size is below 2^32, so nothing here overflows an Int.
            let descriptor = name + (nameSize + 3) & ~3
            guard descriptor + descriptorSize <= count else {
                throw file.source.malformed("has an ELF note that reaches past the end of its segment")
            }
            if type == Self.XEN_ELFNOTE_PHYS32_ENTRY, notes.bytes[name..<name + nameSize].elementsEqual("Xen\0".utf8) {
                switch descriptorSize {
                case 4: return notes.read(UInt32.self, at: descriptor)
                case 8:
                    let entry = notes.read(UInt64.self, at: descriptor)
                    guard let low = UInt32(exactly: entry) else {
                        throw file.source.malformed("has a PVH note with an entry above 4 GiB")
                    }
                    return low
                default: throw file.source.malformed("has a PVH note of \(descriptorSize) bytes, where 4 or 8 are due")
                }
            }
            offset = descriptor + (descriptorSize + 3) & ~3
        }
        return nil
    }
}
