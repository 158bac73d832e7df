import Glibc
import MachineModel

extension BlockBuffers {
    /// `count` bytes from byte `start` on; both lie inside.
    func slice(_ start: Int, _ count: Int) -> BlockBuffers {
        if start == 0 && count == self.count { return self }
        var skip = start
        var left = count
        var slices: [iovec] = []
        for piece in pieces where left > 0 {
            guard skip < piece.iov_len else {
                skip -= piece.iov_len
                continue
            }
            let size = min(piece.iov_len - skip, left)
            // Safe: `skip` is less than the piece's length.
            slices.append(iovec(iov_base: piece.iov_base.map { $0 + skip }, iov_len: size))
            skip = 0
            left -= size
        }
        return BlockBuffers(slices)
    }

    /// Fills all with zeros.
    func clear() {
        // Safe: whoever made the buffers keeps the memory in place.
        for piece in pieces where piece.iov_len > 0 { memset(piece.iov_base, 0, piece.iov_len) }
    }

    /// Copies `source` to where the buffers begin; it is not longer than they are.
    func fill(from source: UnsafeRawBufferPointer) {
        var done = 0
        for piece in pieces where done < source.count && piece.iov_len > 0 {
            let size = min(piece.iov_len, source.count - done)
            // Safe: `size` is within the piece and within what is left of the source.
            memcpy(piece.iov_base, source.baseAddress! + done, size)
            done += size
        }
    }

    /// Copies all to where `target` begins; it has room for them.
    func copy(to target: UnsafeMutableRawBufferPointer) {
        var done = 0
        for piece in pieces where piece.iov_len > 0 && piece.iov_len <= target.count - done {
            // Safe: the condition above.
            memcpy(target.baseAddress! + done, piece.iov_base, piece.iov_len)
            done += piece.iov_len
        }
    }

    /// One piece of memory; it must outlive the buffers.
    init(_ memory: UnsafeMutableRawBufferPointer) {
        self.init([iovec(iov_base: memory.baseAddress, iov_len: memory.count)])
    }
}
