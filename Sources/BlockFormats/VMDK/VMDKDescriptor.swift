/// The text that describes a VMDK disk ("Virtual Disk Format 5.0", "The Descriptor File").
struct VMDKDescriptor {
    enum Kind: Equatable {
        /// A name, and where in that file the disk's bytes begin.
        case flat(String, offset: UInt64)
        case sparse(String)
        case zero
    }

    private(set) var extents: [(sectors: UInt64, kind: Kind)] = []

    init(_ text: String, _ file: HostFile) throws(DiskError) {
        var total: UInt64 = 0
        for line in text.split(whereSeparator: { $0 == "\n" || $0 == "\r" || $0 == "\r\n" || $0 == "\0" }) {
            if line.hasPrefix("#") { continue }
            if line.hasPrefix("parentCID=") {
                guard line.dropFirst("parentCID=".count).lowercased().hasPrefix("ffffffff") else {
                    throw DiskError(
                        .unsupported, file: file.path, "holds only what differs from another disk",
                        mend: "merge them in VMware first")
                }
            }
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            guard words.count >= 3, ["RW", "RDONLY", "NOACCESS"].contains(words[0]) else { continue }
            guard let sectors = UInt64(words[1]), sectors <= UInt64(Int64.max) / 512 - total else {
                throw file.malformed("an extent of \(words[1]) sectors cannot be")
            }
            total += sectors
            extents.append((sectors, try Self.kind(line, words, file)))
        }
    }

    private static func kind(
        _ line: Substring, _ words: [Substring], _ file: HostFile
    ) throws(DiskError) -> Kind {
        if words[2] == "ZERO" { return .zero }
        // Names stand in quotes and may contain blanks.
        let parts = line.split(separator: "\"", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3 else { throw file.malformed("an extent has no name") }
        let name = String(parts[1])
        switch words[2] {
        case "SPARSE": return .sparse(name)
        case "FLAT", "VMFS":
            let text = parts[2].split(separator: " ").first ?? "0"
            guard let sectors = UInt64(text), sectors <= UInt64(Int64.max) / 512 else {
                throw file.malformed("extent '\(name)' begins at sector \(text)")
            }
            return .flat(name, offset: sectors * 512)
        default:
            throw DiskError(
                .unsupported, file: file.path, "has an extent of type \(words[2])",
                mend: "convert it with 'qemu-img convert -O qcow2'")
        }
    }
}
