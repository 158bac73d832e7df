import CDavit
import Glibc
import Synchronization

/// A descriptor that a guest has brought about, closed at the end. There is a limit to them, so that some are left for the rest of the
/// program.
final class SharedDescriptor: Sendable {
    private static let underWay = Atomic<Int>(0)
    /// For disks, networks and the like.
    private static let reserve = 256
    /// A guest that looks at more files than this at once has no memory left for them either.
    private static let most = 1 << 19
    private static let limit = min(
        max(Int(clamping: davit_share_raise_descriptor_limit()) - reserve, reserve), most)

    let number: Int32

    /// Calls `open`, whose result is a descriptor or -1 with errno. Throws ENFILE if the guest has too many.
    init(_ open: () -> Int32) throws(FileError) {
        guard Self.underWay.add(1, ordering: .relaxed).newValue <= Self.limit else {
            Self.underWay.subtract(1, ordering: .relaxed)
            throw FileError(ENFILE)
        }
        number = open()
        guard number >= 0 else {
            let error = FileError.last
            Self.underWay.subtract(1, ordering: .relaxed)
            throw error
        }
    }

    deinit {
        // -1 if it could not be opened, which is accounted for.
        guard number >= 0 else { return }
        close(number)
        Self.underWay.subtract(1, ordering: .relaxed)
    }

    /// A path of the very file, whatever its names have become: proc(5), /proc/PID/fd. The kernel follows it to the file and no further,
    /// even if that is a symbolic link.
    var path: String { "/proc/self/fd/\(number)" }
}
