import CDavit
import Glibc
import HostLinux
import Synchronization

/// The guest's RAM: one memfd, laid out in guest physical address space as a PC's is, with a hole for devices below 4 GiB.
///
/// In the host it is one reservation of address space in which guest physical address `a` stands at `base + a`; the hole is
/// `PROT_NONE`. Access by address and length is checked against the RAM regions: nothing a guest says reaches memory outside.
public final class GuestMemory: Sendable {
    /// A run of RAM in guest physical address space, page aligned.
    public struct Region: Equatable, Sendable {
        public let start: GuestPhysicalAddress
        /// In bytes.
        public let size: UInt64
        /// Where the region begins in the memfd, in bytes.
        public let fileOffset: UInt64

        /// The first address past the region.
        public var end: GuestPhysicalAddress { GuestPhysicalAddress(start.rawValue &+ size) }
    }

    /// Where RAM below 4 GiB ends at the latest; devices live from there to 4 GiB.
    public static let holeStart: UInt64 = 0xC000_0000
    /// Where RAM goes on above the hole.
    public static let holeEnd: UInt64 = 0x1_0000_0000
    public static let pageSize: UInt64 = 4096

    /// RAM in bytes.
    public let size: UInt64
    /// In ascending order, one or two.
    public let regions: [Region]
    /// The memfd behind the RAM; owned by this object.
    public let fileDescriptor: Int32
    /// The host address of guest physical address 0.
    ///
    /// Unsafe: only addresses inside `regions` may be touched. It is valid as long as this object lives.
    public nonisolated(unsafe) let base: UnsafeMutableRawPointer
    /// Bytes of host address space behind `base`.
    public let span: UInt64

    /// Told of every write through this object: an engine that has translated the guest's code forgets what changed.
    private let writeObserver = Mutex(WriteObserver())

    /// A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
    private struct WriteObserver: Sendable {
        var call: (@Sendable (Range<UInt64>) -> Void)?
    }

    private let isObserved = Atomic<Bool>(false)

    /// Reserves and maps `size` bytes of RAM, a multiple of the page size above zero. Pages are allocated when first touched.
    public init(size: UInt64) throws(SystemError) {
        guard size > 0, size % Self.pageSize == 0, size < 1 << 46 else {
            throw SystemError("memfd_create", code: EINVAL)
        }
        let low = min(size, Self.holeStart)
        var regions = [Region(start: GuestPhysicalAddress(0), size: low, fileOffset: 0)]
        if size > low {
            regions.append(Region(start: GuestPhysicalAddress(Self.holeEnd), size: size - low, fileOffset: low))
        }
        let span = size > low ? Self.holeEnd + (size - low) : low

        try AddressSpace.checkRoom(for: Int(span))
        let descriptor = davit_memfd_create("davit-guest-memory")
        guard descriptor >= 0 else { throw SystemError("memfd_create") }
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            let error = SystemError("ftruncate")
            close(descriptor)
            throw error
        }
        let reservation = mmap(nil, Int(span), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let reservation, reservation != MAP_FAILED else {
            let error = SystemError("mmap")
            close(descriptor)
            throw error
        }
        for region in regions {
            let place = reservation + Int(region.start.rawValue)
            let mapped = mmap(
                place, Int(region.size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, descriptor,
                off_t(region.fileOffset))
            if mapped == MAP_FAILED {
                let error = SystemError("mmap")
                munmap(reservation, Int(span))
                close(descriptor)
                throw error
            }
        }
        self.size = size
        self.regions = regions
        self.fileDescriptor = descriptor
        self.base = reservation
        self.span = span
    }

    deinit {
        munmap(base, Int(span))
        close(fileDescriptor)
    }

    /// The host address of `count` bytes at `address`, or nil unless all of them are RAM.
    @inlinable
    public func pointer(at address: GuestPhysicalAddress, count: UInt64) -> UnsafeMutableRawPointer? {
        for region in regions {
            let offset = address.rawValue &- region.start.rawValue
            if offset < region.size {
                return count <= region.size &- offset ? base + Int(address.rawValue) : nil
            }
        }
        return nil
    }

    /// Where `count` bytes at `address` lie in the memfd, or nil unless all of them are RAM.
    ///
    /// To fill pages that nobody has touched, `pwrite` to the memfd takes less than half the time of stores, which fault on each.
    public func fileOffset(of address: GuestPhysicalAddress, count: UInt64) -> UInt64? {
        for region in regions {
            let offset = address.rawValue &- region.start.rawValue
            if offset < region.size { return count <= region.size &- offset ? region.fileOffset &+ offset : nil }
        }
        return nil
    }

    /// Installs the engine's observer of writes, or removes it. `range` is in guest physical addresses; the bytes are already written.
    public func observeWrites(_ observer: (@Sendable (_ range: Range<UInt64>) -> Void)?) {
        writeObserver.withLock { $0.call = observer }
        isObserved.store(observer != nil, ordering: .releasing)
    }

    /// To be called after RAM was written through `pointer(at:count:)` by anyone but the engine.
    public func didWrite(at address: GuestPhysicalAddress, count: UInt64) {
        guard count > 0, isObserved.load(ordering: .acquiring) else { return }
        let observer = writeObserver.withLock { $0.call }
        observer?(address.rawValue..<address.rawValue &+ count)
    }
}
