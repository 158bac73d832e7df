/// Why nothing can be booted from a disk.
public enum DiskContentsError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The disk gives an I/O error.
    case unreadable(String)
    /// Partitions or file systems contradict themselves; what does.
    case damaged(String)
    /// Something of the file system's that is not known here.
    case unsupported(String)
    /// There is no such file.
    case notFound(String)
    /// No file system on it could be read; what was found instead.
    case noFileSystem(String)
    /// No kernel lies where systems keep theirs.
    case noKernel

    public var description: String {
        switch self {
        case .unreadable(let reason): "reading it failed (\(reason))"
        case .damaged(let part): "it is damaged: \(part)"
        case .unsupported(let feature): "its file system has \(feature), which Davit cannot read"
        case .notFound(let path): "it has no \(path)"
        case .noFileSystem(let found): "it has no ext4 file system (\(found))"
        case .noKernel: "no kernel was found in /boot of its ext4 file systems"
        }
    }
}
