import Glibc
import HostLinux

/// An array of plain data that never moves: address space is reserved at once, memory comes when touched.
struct ReservedArray<Element: BitwiseCopyable> {
    /// Unsafe: `capacity` elements of private zeroed memory, valid until `deallocate`.
    let base: UnsafeMutablePointer<Element>
    let capacity: Int

    init(capacity: Int) throws(SystemError) {
        let size = capacity * MemoryLayout<Element>.stride
        try AddressSpace.checkRoom(for: size)
        let memory = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let memory, memory != MAP_FAILED else { throw SystemError("mmap") }
        base = memory.bindMemory(to: Element.self, capacity: capacity)
        self.capacity = capacity
    }

    func deallocate() { munmap(base, capacity * MemoryLayout<Element>.stride) }
}
