import CDavit
import Glibc
import HostLinux
import Synchronization

/// What memory of the host's a guest's RAM is.
public struct GuestMemoryBacking: Equatable, Sendable {
    /// From the pool of huge pages that the host keeps for those who ask (`vm.nr_hugepages`), all of it at once.
    public var usesHugePages: Bool
    /// A memfd, which another process can be handed; otherwise memory of this process alone.
    public var isShared: Bool
    /// The host's KSM may merge pages with the same content (`/sys/kernel/mm/ksm`). It does so with memory that is not shared.
    public var isMergeable: Bool

    public init(usesHugePages: Bool = false, isShared: Bool = true, isMergeable: Bool = false) {
        self.usesHugePages = usesHugePages
        self.isShared = isShared
        self.isMergeable = isMergeable
    }
}

/// The guest's RAM, laid out in guest physical address space as a PC's is, with a hole for devices below 4 GiB.
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
        let fileOffset: UInt64

        /// The first address past the region.
        public var end: GuestPhysicalAddress { GuestPhysicalAddress(start.rawValue &+ size) }
    }

    /// Where RAM below 4 GiB ends at the latest; devices live from there to 4 GiB.
    public static let holeStart: UInt64 = 0xC000_0000
    /// Where RAM goes on above the hole.
    public static let holeEnd: UInt64 = 0x1_0000_0000
    /// The part of RAM that is the BIOS's ROM for the guest's processors, as far as there is RAM: their writes go to the bus, where nothing
    /// takes them. Everyone else, a loader or a device, writes there as to RAM.
    public static let rom: Range<UInt64> = 0xF_0000..<0x10_0000
    public static let pageSize: UInt64 = 4096
    public static let hugePageSize: UInt64 = 2 << 20

    /// RAM in bytes.
    public let size: UInt64
    /// In ascending order, one or two.
    public let regions: [Region]
    public let backing: GuestMemoryBacking
    /// The memfd behind the RAM, owned by this object; -1 if it is not shared.
    let fileDescriptor: Int32
    /// The host address of guest physical address 0.
    ///
    /// Unsafe: only addresses inside `regions` may be touched. It is valid as long as this object lives.
    public nonisolated(unsafe) let base: UnsafeMutableRawPointer
    /// Bytes of host address space behind `base`.
    public let span: UInt64
    /// `base` is the first place in it that huge pages can begin at.
    private nonisolated(unsafe) let reservation: UnsafeMutableRawPointer

    /// Told of every write through this object: an engine that has translated the guest's code forgets what changed.
    private let writeObserver = Mutex(WriteObserver())

    /// A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
    private struct WriteObserver: Sendable {
        var call: (@Sendable (Range<UInt64>) -> Void)?
        var number: UInt64 = 0
    }

    private let isObserved = Atomic<Bool>(false)

    /// Reserves and maps `size` bytes of RAM, a multiple of the page size above zero. Pages are allocated when first touched, huge ones
    /// set aside now.
    public init(size: UInt64, backing: GuestMemoryBacking = GuestMemoryBacking()) throws(SystemError) {
        guard size > 0, size % (backing.usesHugePages ? Self.hugePageSize : Self.pageSize) == 0, size < 1 << 46 else {
            throw SystemError("mmap", code: EINVAL)
        }
        let low = min(size, Self.holeStart)
        var regions = [Region(start: GuestPhysicalAddress(0), size: low, fileOffset: 0)]
        if size > low {
            regions.append(Region(start: GuestPhysicalAddress(Self.holeEnd), size: size - low, fileOffset: low))
        }
        let span = size > low ? Self.holeEnd + (size - low) : low

        try AddressSpace.checkRoom(for: Int(span))
        let descriptor = backing.isShared ? try Self.makeFile(size: size, backing) : -1
        do throws(SystemError) {
            let reservation = mmap(
                nil, Int(span + Self.hugePageSize), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
            guard let reservation, reservation != MAP_FAILED else { throw SystemError("mmap") }
            let base = reservation.alignedUp(toMultipleOf: Int(Self.hugePageSize))
            do throws(SystemError) {
                for region in regions { try Self.map(region, at: base, of: descriptor, backing) }
            } catch {
                munmap(reservation, Int(span + Self.hugePageSize))
                throw error
            }
            self.reservation = reservation
            self.base = base
        } catch {
            if descriptor >= 0 { close(descriptor) }
            throw error
        }
        self.size = size
        self.regions = regions
        self.backing = backing
        self.fileDescriptor = descriptor
        self.span = span
    }

    private static func makeFile(size: UInt64, _ backing: GuestMemoryBacking) throws(SystemError) -> Int32 {
        let descriptor = davit_memfd_create("davit-guest-memory", backing.usesHugePages)
        guard descriptor >= 0 else { throw SystemError("memfd_create") }
        guard ftruncate(descriptor, off_t(size)) == 0 else {
            let error = SystemError("ftruncate")
            close(descriptor)
            throw error
        }
        return descriptor
    }

    private static func map(
        _ region: Region, at base: UnsafeMutableRawPointer, of descriptor: Int32, _ backing: GuestMemoryBacking
    ) throws(SystemError) {
        let place = base + Int(region.start.rawValue)
        var flags = MAP_FIXED | (backing.isShared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS)
        // Huge pages that are not set aside now end the process when they are touched and none is left.
        if !backing.usesHugePages { flags |= MAP_NORESERVE } else if !backing.isShared { flags |= MAP_HUGETLB }
        let mapped = mmap(
            place, Int(region.size), PROT_READ | PROT_WRITE, flags, descriptor,
            backing.isShared ? off_t(region.fileOffset) : 0)
        if mapped == MAP_FAILED { throw SystemError("mmap") }
        if backing.isMergeable, madvise(place, Int(region.size), MADV_MERGEABLE) != 0 {
            throw SystemError("madvise(MADV_MERGEABLE)")
        }
    }

    deinit {
        munmap(reservation, Int(span + Self.hugePageSize))
        if fileDescriptor >= 0 { close(fileDescriptor) }
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

    /// Installs the engine's observer of writes in place of the one before, and returns its number. `range` is in guest physical addresses;
    /// the bytes are already written.
    public func observeWrites(_ observer: @escaping @Sendable (_ range: Range<UInt64>) -> Void) -> UInt64 {
        writeObserver.withLock { current in
            current.call = observer
            current.number &+= 1
            isObserved.store(true, ordering: .releasing)
            return current.number
        }
    }

    /// Removes the observer, unless another has taken its place.
    public func endObserving(_ number: UInt64) {
        writeObserver.withLock { current in
            guard current.number == number else { return }
            current.call = nil
            isObserved.store(false, ordering: .releasing)
        }
    }

    /// To be called after RAM was written through `pointer(at:count:)` by anyone but the engine.
    public func didWrite(at address: GuestPhysicalAddress, count: UInt64) {
        guard count > 0, isObserved.load(ordering: .acquiring) else { return }
        let observer = writeObserver.withLock { $0.call }
        observer?(address.rawValue..<address.rawValue &+ count)
    }
}
