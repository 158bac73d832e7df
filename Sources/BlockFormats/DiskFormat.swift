/// How a disk lies in a file.
public enum DiskFormat: String, CaseIterable, Sendable {
    case raw, qcow2, vmdk, vhdx

    /// One line, without a full stop.
    public var summary: String {
        switch self {
        case .raw: "the file's bytes are the disk's"
        case .qcow2: "QEMU's, which grows as it is written"
        case .vmdk: "VMware's, read-only"
        case .vhdx: "Hyper-V's, read-only"
        }
    }

    public var isWritable: Bool { self == .raw || self == .qcow2 }

    /// Endings of names that stand for a format.
    private static let endings: [String: DiskFormat] = [
        "raw": .raw, "img": .raw, "iso": .raw, "qcow2": .qcow2, "vmdk": .vmdk, "vhdx": .vhdx,
    ]

    /// What the first bytes look like. A guest with a raw disk chooses them, so they alone prove nothing.
    static func seen(in head: [UInt8]) -> DiskFormat {
        if head.starts(with: Qcow2Header.magic) { return .qcow2 }
        if head.starts(with: Array("KDMV".utf8)) || head.starts(with: Array("# Disk DescriptorFile".utf8)) {
            return .vmdk
        }
        if head.starts(with: Array("vhdxfile".utf8)) { return .vhdx }
        return .raw
    }

    private static func byName(_ path: String) -> DiskFormat? {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        let ending = name.contains(".") ? name.split(separator: ".").last.map { $0.lowercased() } : nil
        return ending.flatMap { endings[$0] }
    }

    /// The format that the name of a new file says.
    public static func named(_ path: String) throws(DiskError) -> DiskFormat {
        if let format = byName(path) { return format }
        throw DiskError(
            .formatNotStated, file: path, "its name says no format",
            mend: "end it in .qcow2 or .raw, or state the format")
    }

    /// The format of a file whose user has not stated one: name and content must agree. A name that says nothing will do for a file that
    /// is only read and looks raw, or for one that is in no danger of being a raw disk with a guest's bytes in front.
    static func find(_ path: String, head: [UInt8], forWriting: Bool) throws(DiskError) -> DiskFormat {
        let named = byName(path)
        let seen = seen(in: head)
        if named == seen { return seen }
        if named == nil && seen == .raw && !forWriting { return .raw }
        let looks = seen == .raw ? "its content has no format's mark" : "its content looks like \(seen.rawValue)"
        let says = named.map { "its name says \($0.rawValue)" } ?? "its name says no format"
        let choices = named.map { $0 == seen ? [$0] : [seen, $0] } ?? (seen == .raw ? [.raw] : [seen, .raw])
        let mend = choices.map { "format=\($0.rawValue)" }.joined(separator: " or ")
        throw DiskError(.formatNotStated, file: path, "\(says), and \(looks)", mend: "say which it is with \(mend)")
    }
}
