import CCompression

extension KernelFile {
    /// More than any kernel unpacks to, in bytes: what a small file may make of itself has an end.
    private static let largestUnpacked: UInt64 = 1 << 30

    /// This file, or what is in it if it is packed by gzip (RFC 1952), as distributions pack Xen. Its name stays.
    func unpacked() throws(BootError) -> KernelFile {
        guard size >= 18, try head(3) == [0x1F, 0x8B, 8] else { return self }
        guard size <= Self.largestUnpacked else { throw source.malformed("is too large for a kernel packed by gzip") }
        let packed = try read(at: 0, count: Int(size), part: "the packed kernel")
        // The last field is the size of what was packed, modulo 2^32.
        let unpackedSize = UInt64(ByteImage(Array(packed.suffix(4))).read(UInt32.self, at: 0))
        guard unpackedSize > 0, unpackedSize <= Self.largestUnpacked, unpackedSize / 1032 <= size else {
            throw source.malformed(
                "is packed by gzip and damaged, or no kernel: it claims to hold \(unpackedSize) bytes")
        }
        var isGood = false
        // Safe: both buffers are passed with their sizes.
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(unpackedSize)) { buffer, count in
            isGood = packed.withUnsafeBytes {
                davit_gunzip($0.baseAddress!, $0.count, buffer.baseAddress!, buffer.count)
            }
            count = isGood ? buffer.count : 0
        }
        guard isGood else { throw source.malformed("is packed by gzip and damaged") }
        return KernelFile(bytes: bytes, name: path, flag: flag)
    }
}
