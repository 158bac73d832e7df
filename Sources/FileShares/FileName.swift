import Glibc

/// The name of one file in a directory: it leads nowhere else.
struct FileName: Sendable {
    /// Ends with a zero.
    let bytes: [CChar]

    /// Throws for names that are empty, `.` or `..`, too long, or have a slash in them. `bytes` has no zero.
    init(_ name: some Collection<UInt8>) throws(FileError) {
        guard name.count <= Int(NAME_MAX) else { throw FileError(ENAMETOOLONG) }
        let slash = UInt8(ascii: "/")
        guard !name.isEmpty, !name.contains(slash), !name.contains(0), !name.elementsEqual(".".utf8),
            !name.elementsEqual("..".utf8)
        else { throw FileError(EINVAL) }
        bytes = name.map { CChar(bitPattern: $0) } + [0]
    }
}
