/// The Internet checksum (RFC 1071).
enum InternetChecksum {
    /// The one's complement of the one's complement sum of `bytes`, taken as big-endian 16-bit words; as it is stored.
    static func of(_ bytes: UnsafeRawBufferPointer) -> UInt16 {
        var sum: UInt64 = 0
        var place = 0
        // Sums of 32-bit words fold to the same as those of 16-bit words, in either byte order (RFC 1071, 2).
        while bytes.count - place >= 4 {
            sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
            place += 4
        }
        if bytes.count - place >= 2 {
            sum &+= UInt64(bytes.loadUnaligned(fromByteOffset: place, as: UInt16.self))
            place += 2
        }
        if place < bytes.count { sum &+= UInt64(bytes[place]) }
        while sum >> 16 != 0 { sum = sum & 0xFFFF &+ sum >> 16 }
        return UInt16(truncatingIfNeeded: ~sum)
    }

    /// Completes a frame's checksum, over what stands in its place already. False if the places lie outside the frame.
    static func complete(_ frame: UnsafeMutableRawBufferPointer, start: Int, offset: Int) -> Bool {
        guard start >= 0, offset >= 0, start + offset + 2 <= frame.count else { return false }
        var checksum = of(UnsafeRawBufferPointer(rebasing: frame[start...]))
        // Zero would mean that there is none (RFC 768).
        if checksum == 0 { checksum = 0xFFFF }
        frame.storeBytes(of: checksum, toByteOffset: start + offset, as: UInt16.self)
        return true
    }
}
