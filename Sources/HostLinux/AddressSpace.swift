import Glibc

/// The process's own address space, which the host may limit (`ulimit -v`).
public enum AddressSpace {
    /// More than small allocations, and the stacks of a few threads, take until the next look. The first cannot fail but by ending the
    /// process, so large pieces leave room.
    private static let headroom = 64 << 20

    /// Throws if a mapping of `size` bytes would not leave as much as small allocations may come to need. To be asked before each large piece.
    public static func checkRoom(for size: Int) throws(SystemError) {
        let (total, overflow) = size.addingReportingOverflow(headroom)
        guard !overflow else { throw SystemError("mmap", code: ENOMEM) }
        let place = mmap(nil, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let place, place != MAP_FAILED else { throw SystemError("mmap") }
        munmap(place, total)
    }
}
