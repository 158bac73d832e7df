import CDavit
import Glibc
import HostLinux

/// Memory for code made at run time: one memfd, mapped writable at one place and executable at another, never both in one.
///
/// The pool has a fixed size and is handed out in segments of equal size, oldest first: whoever wants room past the last segment
/// gives up what the oldest one holds. One thread owns a pool; code in it may run on any.
public final class CodePool {
    /// In bytes, a multiple of the page size.
    public let segmentSize: Int
    public let segmentCount: Int
    private let writable: UnsafeMutableRawPointer
    /// Where segment 0 runs.
    private let executable: UnsafeMutableRawPointer

    /// A run of code memory. Unsafe: it must not outlive its pool.
    public struct Segment: BitwiseCopyable {
        public let index: Int
        let writable: UnsafeMutableRawPointer
        let executable: UInt
        let size: Int
        /// Bytes that hold code.
        public private(set) var used = 0

        init(index: Int, writable: UnsafeMutableRawPointer, executable: UInt, size: Int) {
            self.index = index
            self.writable = writable
            self.executable = executable
            self.size = size
        }

        /// Writes code to the segment's free part with `emit` and returns the address at which it runs, aligned to 16 bytes;
        /// nil if it does not fit, and the segment is as before.
        public mutating func append(_ emit: (inout Assembler) -> Void) -> UInt? {
            let start = (used &+ 15) & ~15
            guard start < size else { return nil }
            var assembler = Assembler(
                buffer: UnsafeMutableRawBufferPointer(start: writable + start, count: size - start),
                code: executable &+ UInt(start))
            emit(&assembler)
            guard !assembler.overflowed else { return nil }
            used = start + assembler.count
            return executable &+ UInt(start)
        }
    }

    /// Sizes in bytes; `segmentSize` is a multiple of the page size. Pages are allocated when first written.
    public init(segmentSize: Int, segmentCount: Int) throws(SystemError) {
        precondition(segmentSize > 0 && segmentSize % 4096 == 0 && segmentCount > 0, "segments are whole pages")
        self.segmentSize = segmentSize
        self.segmentCount = segmentCount
        let size = segmentSize * segmentCount
        // It is mapped twice.
        try AddressSpace.checkRoom(for: size * 2)
        let descriptor = davit_memfd_create("davit-code", false)
        guard descriptor >= 0 else { throw SystemError("memfd_create") }
        defer { close(descriptor) }
        guard ftruncate(descriptor, off_t(size)) == 0 else { throw SystemError("ftruncate") }
        let writable = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let writable, writable != MAP_FAILED else { throw SystemError("mmap") }
        let executable = mmap(nil, size, PROT_READ | PROT_EXEC, MAP_SHARED, descriptor, 0)
        guard let executable, executable != MAP_FAILED else {
            let error = SystemError("mmap")
            munmap(writable, size)
            throw error
        }
        self.writable = writable
        self.executable = executable
    }

    /// The pool's first byte as its owner writes it. Unsafe: valid as long as the pool.
    public var writableBase: UnsafeMutablePointer<UInt8> { writable.assumingMemoryBound(to: UInt8.self) }
    /// How far from where a byte is written it runs, in bytes.
    public var executionDelta: Int { executable - writable }

    deinit {
        munmap(writable, segmentSize * segmentCount)
        munmap(executable, segmentSize * segmentCount)
    }

    /// The addresses at which the pool's code runs.
    public var addresses: Range<UInt> {
        let start = UInt(bitPattern: executable)
        return start..<start + UInt(segmentSize * segmentCount)
    }

    /// The segment of that number, empty. Nothing may still run in it.
    public func emptySegment(_ index: Int) -> Segment {
        precondition(index >= 0 && index < segmentCount, "no such segment")
        return Segment(
            index: index, writable: writable + index * segmentSize,
            executable: UInt(bitPattern: executable) + UInt(index * segmentSize), size: segmentSize)
    }

    /// Overwrites the rel32 of a jump at `address` so that it leads to `target`. Safe while the code runs if the rel32 is aligned to
    /// 4 bytes: the store is then one piece.
    public func patchJump(rel32At address: UInt, to target: UInt) {
        precondition(addresses.contains(address) && addresses.contains(address &+ 3), "no code of this pool")
        let place = writable + Int(address - addresses.lowerBound)
        place.storeBytes(of: Int32(truncatingIfNeeded: Int(bitPattern: target &- (address &+ 4))), as: Int32.self)
    }
}
