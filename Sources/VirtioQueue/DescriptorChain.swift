import Glibc
import GuestMemory

/// The buffers of one request: pieces of guest RAM that the device reads, then pieces that it writes.
///
/// Unsafe: the pieces point into guest RAM, which lives as long as its `GuestMemory`, and the guest may change it at any time: what was
/// read once must be judged and obeyed as it was read.
public struct DescriptorChain: @unchecked Sendable {
    /// What the used ring is told.
    var id: UInt16 = 0
    /// Descriptors that it takes in the ring; indirect ones do not count.
    var length: UInt16 = 0
    /// A readable piece came after a writable one: the device must not use the chain.
    public internal(set) var isOutOfOrder = false
    public private(set) var readable: [iovec] = []
    public private(set) var writable: [iovec] = []
    /// Where the writable pieces are, in guest physical addresses.
    private(set) var writableAddresses: [UInt64] = []
    /// Of all readable pieces together, in bytes.
    public private(set) var readableCount = 0
    /// Of all writable pieces together, in bytes.
    public private(set) var writableCount = 0

    public init() {}

    mutating func removeAll() {
        isOutOfOrder = false
        readable.removeAll(keepingCapacity: true)
        writable.removeAll(keepingCapacity: true)
        writableAddresses.removeAll(keepingCapacity: true)
        readableCount = 0
        writableCount = 0
    }

    /// `count` bytes of RAM at `place`; pieces of no bytes are left out.
    mutating func append(_ place: UnsafeMutableRawPointer, count: Int, address: UInt64, isWritable: Bool) {
        if isWritable {
            guard count > 0 else { return }
            writable.append(iovec(iov_base: place, iov_len: count))
            writableAddresses.append(address)
            writableCount += count
        } else {
            if !writable.isEmpty { isOutOfOrder = true }
            guard count > 0 else { return }
            readable.append(iovec(iov_base: place, iov_len: count))
            readableCount += count
        }
    }

    /// Copies readable bytes from `offset` on; how many there were.
    public func copyReadable(from offset: Int = 0, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        for piece in Self.slice(readable, from: offset, count: buffer.count) {
            UnsafeMutableRawBufferPointer(rebasing: buffer[done...]).copyMemory(
                from: UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len))
            done += piece.iov_len
        }
        return done
    }

    /// A plain value from the readable bytes; nil if there are too few.
    public func read<Value: BitwiseCopyable>(_ type: Value.Type, at offset: Int = 0, default value: Value) -> Value? {
        var value = value
        let count = withUnsafeMutableBytes(of: &value) { copyReadable(from: offset, into: $0) }
        return count == MemoryLayout<Value>.size ? value : nil
    }

    /// Copies bytes to the writable pieces, `offset` bytes in; how many had room.
    @discardableResult
    public func copyWritable(at offset: Int = 0, from buffer: UnsafeRawBufferPointer) -> Int {
        var done = 0
        for piece in Self.slice(writable, from: offset, count: buffer.count) {
            UnsafeMutableRawBufferPointer(start: piece.iov_base, count: piece.iov_len).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: buffer[done..<done + piece.iov_len]))
            done += piece.iov_len
        }
        return done
    }

    /// Writes a plain value, `offset` bytes into the writable pieces; how many bytes had room.
    @discardableResult
    public func write<Value: BitwiseCopyable>(_ value: Value, at offset: Int = 0) -> Int {
        withUnsafeBytes(of: value) { copyWritable(at: offset, from: $0) }
    }

    public func readablePieces(from offset: Int, count: Int) -> [iovec] {
        Self.slice(readable, from: offset, count: count)
    }

    public func writablePieces(from offset: Int, count: Int) -> [iovec] {
        Self.slice(writable, from: offset, count: count)
    }

    /// The part of `pieces` from byte `offset` on, `count` bytes at most.
    private static func slice(_ pieces: [iovec], from offset: Int, count: Int) -> [iovec] {
        var skip = offset
        var rest = count
        var result: [iovec] = []
        for piece in pieces where rest > 0 {
            if skip >= piece.iov_len {
                skip -= piece.iov_len
                continue
            }
            let length = min(piece.iov_len - skip, rest)
            // Safe: `skip` and `length` stay inside the piece.
            result.append(iovec(iov_base: piece.iov_base.map { $0 + skip }, iov_len: length))
            rest -= length
            skip = 0
        }
        return result
    }
}
