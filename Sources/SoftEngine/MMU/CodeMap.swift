import CDavit
import Glibc
import GuestMemory
import HostLinux
import Synchronization

/// Which bytes of guest RAM hold instructions that some vCPU has decoded (or translated): two words for each physical page,
/// shared by all vCPUs, changed by atomic operations alone.
///
/// Who caches code sets the chunk bits first, has every vCPU drop its write tags for the page if no bit was set before, then reads
/// the generation, then the bytes. Who writes to RAM without a write tag writes first, then calls `didWrite`, which moves the
/// generation if a chunk with code was hit: one of the two always sees the other. Cached code is good while the generation is
/// the one it was made under; else its bytes are compared again.
struct CodeMap: @unchecked Sendable {
    /// One physical page.
    struct Page: BitwiseCopyable {
        /// A bit for each 64 bytes that hold cached code. A page without any may have write tags.
        var chunks: UInt64
        /// Moves on when a chunk with code is written.
        var generation: UInt64
    }

    /// Safe to share: all access is atomic. Zero pages of an anonymous mapping stand behind pages that were never touched.
    let pages: UnsafeMutablePointer<Page>
    /// Physical pages covered; RAM ends below.
    let count: Int
    /// What was hit, for those who keep more than a generation can tell them of.
    let invalidations = CodeInvalidations()
    /// Who is told of pages that are about to hold cached code.
    let observer = CodeObserver()

    /// Null if the host has no address space left.
    init?(span: UInt64) {
        let count = Int(span / GuestMemory.pageSize)
        let bytes = count * MemoryLayout<Page>.stride
        guard (try? AddressSpace.checkRoom(for: bytes)) != nil else { return nil }
        let place = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let place, place != MAP_FAILED else { return nil }
        pages = place.bindMemory(to: Page.self, capacity: count)
        self.count = count
    }

    func unmap() { munmap(pages, count * MemoryLayout<Page>.stride) }

    /// The pages as pairs of words, chunks first: so `davit_tlb_fill` reads them.
    var words: UnsafeMutablePointer<UInt64> { UnsafeMutableRawPointer(pages).assumingMemoryBound(to: UInt64.self) }

    /// Chunk bits for `size` bytes from `address` on, as far as they lie in its page.
    @inline(__always)
    static func chunks(at address: UInt64, size: UInt64) -> UInt64 {
        let first = (address & 0xFFF) >> 6
        let last = min((address & 0xFFF) &+ (size &- 1), 0xFFF) >> 6
        return (UInt64.max << first) & (UInt64.max >> (63 &- last))
    }

    /// A page of RAM holds no cached code: it may have write tags.
    @inline(__always)
    func isPlain(page address: UInt64) -> Bool { davit_atomic_load64(pages + Int(address >> 12)) == 0 }

    /// Sets the chunk bits of code that is about to be read. True if the page had none before: then write tags must go first.
    @inline(__always)
    func mark(at address: UInt64, size: UInt64) -> Bool {
        let page = pages + Int(address >> 12)
        let bits = Self.chunks(at: address, size: size)
        guard davit_atomic_load64(page) & bits != bits else { return false }
        return davit_atomic_or64(page, bits) == 0
    }

    /// To be called after `size` bytes of RAM at `address`, inside one page, were written without a write tag.
    /// Returns true if cached code was hit.
    @inline(__always)
    func didWrite(at address: UInt64, size: UInt64) -> Bool {
        let page = pages + Int(address >> 12)
        // The write must be visible before the bits are read: the fence of an atomic addition of nothing.
        guard davit_atomic_or64(page, 0) != 0 else { return false }
        let hit = Self.chunks(at: address, size: size)
        let lost = davit_atomic_and64(page, ~hit) & hit
        guard lost != 0 else { return false }
        _ = davit_atomic_add64(generation(of: page), 1)
        invalidations.append(CodeInvalidations.Entry(page: address >> 12, chunks: lost))
        return true
    }

    /// As `didWrite(at:size:)` for a range of any length, of which only the part below `count` pages matters.
    func didWrite(range: Range<UInt64>) {
        var address = range.lowerBound
        let end = min(range.upperBound, UInt64(count) << 12)
        while address < end {
            let next = min((address | 0xFFF) &+ 1, end)
            _ = didWrite(at: address, size: next &- address)
            address = next
        }
    }

    @inline(__always)
    func generation(of page: UnsafeMutablePointer<Page>) -> UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(page) + 8
    }

    @inline(__always)
    func currentGeneration(of address: UInt64) -> UInt64 {
        davit_atomic_load64(generation(of: pages + Int(address >> 12)))
    }
}

/// Who wants to know of a page before the first code of it is cached, if anybody.
final class CodeObserver: Sendable {
    /// Guards who it is; not held while it is called. A struct, since a bare function in a `Mutex` is wrapped once more by every look.
    private let observer = Mutex<Observer?>(nil)

    private struct Observer: Sendable {
        let willCache: @Sendable (_ page: UInt64) -> Void
    }

    func set(_ body: (@Sendable (_ page: UInt64) -> Void)?) {
        observer.withLock { $0 = body.map(Observer.init) }
    }

    func willCache(page: UInt64) {
        let observer = observer.withLock { $0 }
        observer?.willCache(page)
    }
}
