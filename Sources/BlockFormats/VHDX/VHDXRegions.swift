/// Identifiers as they lie in the file: the first three groups are little-endian.
private enum Identifier {
    static let table: [UInt8] = bytes(0x2DC2_7766, 0xF623, 0x4200, [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08])
    static let metadata: [UInt8] = bytes(0x8B7C_A206, 0x4790, 0x4B9A, [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E])
    static let parameters: [UInt8] = bytes(
        0xCAA1_6737, 0xFA36, 0x4D43, [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B])
    static let size: [UInt8] = bytes(0x2FA5_4224, 0xCD1B, 0x4876, [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8])
    static let sectorSize: [UInt8] = bytes(
        0x8141_BF1D, 0xA96F, 0x4709, [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F])

    private static func bytes(_ a: UInt32, _ b: UInt16, _ c: UInt16, _ rest: [UInt8]) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: a >> ($0 * 8)) }
            + [b, c].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
            + rest
    }
}

/// Where block table and metadata are ([MS-VHDX] 2.2.3).
struct VHDXRegions {
    struct Region {
        let offset: UInt64
        /// In bytes.
        let count: UInt64
    }

    let table: Region
    let metadata: Region

    private static let places: [UInt64] = [192 << 10, 256 << 10]
    private static let length = 64 << 10
    private static let maximumEntries: UInt32 = 2047

    init(_ file: VHDXFile) throws(DiskError) {
        for place in Self.places {
            let bytes = try file.header(at: place, count: Self.length, part: "the region table")
            guard bytes.starts(with: Array("regi".utf8)), CRC32C.isGood(bytes) else { continue }
            let count = bytes.littleEndian(UInt32.self, at: 8)
            guard count <= Self.maximumEntries else { continue }
            var table: Region?
            var metadata: Region?
            for number in 0..<Int(count) {
                let at = 16 + number * 32
                let region = Region(
                    offset: bytes.littleEndian(UInt64.self, at: at + 16),
                    count: UInt64(bytes.littleEndian(UInt32.self, at: at + 24)))
                switch Array(bytes[at..<at + 16]) {
                case Identifier.table: table = region
                case Identifier.metadata: metadata = region
                default:
                    guard bytes.littleEndian(UInt32.self, at: at + 28) & 1 == 0 else {
                        throw file.host.malformed("it has a required region that Davit does not know")
                    }
                }
            }
            guard let table, let metadata else { throw file.host.malformed("it has no block table or no metadata") }
            self.table = table
            self.metadata = metadata
            return
        }
        throw file.host.malformed("both of its region tables are damaged")
    }
}

/// What the metadata region says of the disk ([MS-VHDX] 2.6).
struct VHDXMetadata {
    /// Of the disk, in bytes.
    let size: UInt64
    /// Of a payload block, in bytes: a power of two from 1 MiB to 256 MiB.
    let blockSize: UInt32
    /// 512 or 4096.
    let sectorSize: UInt32
    let hasParent: Bool

    private static let tableSize = 64 << 10
    private static let maximumItems: UInt16 = 2047

    init(_ file: VHDXFile, _ region: VHDXRegions.Region) throws(DiskError) {
        let bytes = try file.header(at: region.offset, count: Self.tableSize, part: "the metadata table")
        let count = bytes.littleEndian(UInt16.self, at: 10)
        guard bytes.starts(with: Array("metadata".utf8)), count <= Self.maximumItems else {
            throw file.host.malformed("its metadata table is damaged")
        }
        var places: [[UInt8]: UInt64] = [:]
        for number in 0..<Int(count) {
            let at = 32 + number * 32
            let offset = UInt64(bytes.littleEndian(UInt32.self, at: at + 16))
            places[Array(bytes[at..<at + 16])] = region.offset &+ offset
        }
        func item(_ identifier: [UInt8], _ count: Int, _ part: String) throws(DiskError) -> [UInt8] {
            guard let place = places[identifier] else { throw file.host.malformed("it does not have \(part)") }
            return try file.header(at: place, count: count, part: part)
        }
        let parameters = try item(Identifier.parameters, 8, "the file parameters")
        blockSize = parameters.littleEndian(UInt32.self, at: 0)
        hasParent = parameters.littleEndian(UInt32.self, at: 4) & 2 != 0
        size = try item(Identifier.size, 8, "the disk's size").littleEndian(UInt64.self, at: 0)
        sectorSize = try item(Identifier.sectorSize, 4, "the sector size").littleEndian(UInt32.self, at: 0)
        guard (1 << 20...256 << 20).contains(blockSize), blockSize & (blockSize - 1) == 0 else {
            throw file.host.malformed("blocks of \(blockSize) bytes cannot be")
        }
        guard sectorSize == 512 || sectorSize == 4096 else {
            throw file.host.malformed("sectors of \(sectorSize) bytes cannot be")
        }
    }
}
