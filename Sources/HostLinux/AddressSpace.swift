import CDavit
import Glibc

/// The process's own address space, which the host may limit (`ulimit -v`).
public enum AddressSpace {
    /// More than small allocations, and the stacks of a few threads, take until the next look. The first cannot fail but by ending the
    /// process, so large pieces leave room.
    private static let headroom: UInt64 = 64 << 20

    /// Where the host limits the address space, all threads allocate from one heap. Otherwise glibc maps 128 MiB for a thread's first
    /// allocation and gives half of it back: meanwhile another thread's allocation fails. To be called before the first thread starts.
    public static func allocateFromOneHeap() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0, limit.rlim_cur != rlim_t.max else {
            return
        }
        // mallopt(3). A refusal leaves the heaps as they are.
        _ = mallopt(M_ARENA_MAX, 1)
    }

    /// Throws if a mapping of `size` bytes would not leave as much as small allocations may come to need. To be asked before each large piece.
    ///
    /// It computes, and maps nothing to try: meanwhile another thread's small allocation would fail.
    public static func checkRoom(for size: Int) throws(SystemError) {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit) == 0, limit.rlim_cur != rlim_t.max,
            let used = sizeInUse
        else { return }
        let free = UInt64(limit.rlim_cur) < used ? 0 : UInt64(limit.rlim_cur) - used
        guard let size = UInt64(exactly: size), free > headroom, size <= free - headroom else {
            throw SystemError("mmap", code: ENOMEM)
        }
    }

    /// In bytes: proc(5), the first number of /proc/PID/statm, in pages. Nil if it cannot be told.
    private static var sizeInUse: UInt64? {
        let file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 128) { buffer in
            let count = read(file, buffer.baseAddress, buffer.count)
            guard count > 0 else { return nil }
            var pages: UInt64 = 0
            for byte in buffer.prefix(count) {
                guard byte >= 0x30, byte <= 0x39 else { break }
                pages = pages &* 10 &+ UInt64(byte - 0x30)
            }
            return pages &* UInt64(sysconf(Int32(_SC_PAGESIZE)))
        }
    }
}
