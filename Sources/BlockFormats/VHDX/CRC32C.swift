/// The checksum of Castagnoli (RFC 3720, appendix B.4).
enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value >> 1 ^ (value & 1 == 0 ? 0 : 0x82F6_3B78) }
    }

    static func of(_ bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(UInt32.max) { sum, byte in sum >> 8 ^ table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] }
    }

    /// The checksum of a structure, which has it in bytes 4 to 7, which count as zeros, is right.
    static func isGood(_ structure: [UInt8]) -> Bool {
        structure.count >= 8
            && of(structure[..<4] + [0, 0, 0, 0] + structure[8...]) == structure.littleEndian(UInt32.self, at: 4)
    }
}
