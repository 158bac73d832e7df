import Glibc

/// What cloud-init in a guest finds at its first start: a disk with the label CIDATA that holds `user-data` and `meta-data` (cloud-init's data
/// source NoCloud). It is a FAT12 volume (Microsoft, FAT: General Overview of On-Disk Format, 1.03) of 2 MiB.
public struct SeedDisk {
    private static let sectorSize = 512
    private static let sectorCount = 4096
    private static let clusterSize = 2 * sectorSize
    private static let fatSectors = 6
    private static let rootEntries = 16
    private static let entrySize = 32
    private static let firstFAT = sectorSize
    private static let root = firstFAT + 2 * fatSectors * sectorSize
    private static let data = root + rootEntries * entrySize
    /// What user-data may have, in bytes.
    static let maximumSize = 1 << 20
    /// How cloud-init tells what user-data is: its first words.
    private static let beginnings = [
        "#cloud-config", "#!", "#include", "#cloud-boothook", "#part-handler", "#cloud-config-archive", "## template:",
        "Content-Type:", "MIME-Version:",
    ]

    public let bytes: [UInt8]

    /// With what the user has written in a file. `hostname` is the guest's to be.
    public init(userData path: String, hostname: String?) throws(StoreError) {
        guard let text = SmallFile.read(path) else {
            let reason = access(path, R_OK) == 0 ? "it has more than 1 MiB" : String(cString: strerror(errno))
            throw StoreError("--cloud-init \(path): cannot be read (\(reason))")
        }
        guard Self.beginnings.contains(where: text.hasPrefix) else {
            throw StoreError(
                "--cloud-init \(path): cloud-init would not know what it is; its first line is to be '#cloud-config', or '#!' and a program"
            )
        }
        // Another id is another machine, where all is done anew.
        var metaData = "instance-id: davit-\(UInt64.random(in: 0 ... .max))\n"
        if let hostname { metaData += "local-hostname: \(hostname)\n" }
        self.init(userData: Array(text.utf8), metaData: Array(metaData.utf8))
    }

    init(userData: [UInt8], metaData: [UInt8]) {
        var volume = [UInt8](repeating: 0, count: Self.sectorCount * Self.sectorSize)
        Self.put(Self.bootSector, at: 0, in: &volume)
        // The first two entries of the FAT are no clusters': the medium, and an end.
        var table: [UInt16] = [0xFF8, 0xFFF]
        var entries = [Self.entry("CIDATA     ", attributes: 0x08, cluster: 0, size: 0)]
        for (name, short, contents) in [
            ("user-data", "USER-D~1   ", userData), ("meta-data", "META-D~1   ", metaData),
        ] {
            let first = table.count
            let count = (contents.count + Self.clusterSize - 1) / Self.clusterSize
            for index in 0..<count { table.append(index == count - 1 ? 0xFFF : UInt16(table.count + 1)) }
            Self.put(contents, at: Self.data + (first - 2) * Self.clusterSize, in: &volume)
            entries.append(Self.longName(name, of: short))
            entries.append(Self.entry(short, attributes: 0x20, cluster: count == 0 ? 0 : first, size: contents.count))
        }
        let packed = Self.pack(table)
        for copy in 0..<2 {
            Self.put(packed, at: Self.firstFAT + copy * Self.fatSectors * Self.sectorSize, in: &volume)
        }
        Self.put(Array(entries.joined()), at: Self.root, in: &volume)
        bytes = volume
    }

    /// Puts the disk into a machine that comes to be in `directory`.
    public func write(in directory: String) throws(StoreError) {
        try SmallFile.write(directory + "/" + MachineDirectory.seedFile, bytes: bytes)
    }

    private static var bootSector: [UInt8] {
        var sector = [UInt8](repeating: 0, count: sectorSize)
        put([0xEB, 0x3C, 0x90] + Array("DAVIT   ".utf8), at: 0, in: &sector)
        put16(sectorSize, at: 11, in: &sector)
        sector[13] = UInt8(clusterSize / sectorSize)
        // Reserved sectors, FATs, root entries, sectors.
        put16(1, at: 14, in: &sector)
        sector[16] = 2
        put16(rootEntries, at: 17, in: &sector)
        put16(sectorCount, at: 19, in: &sector)
        // A fixed disk; the length of a FAT, and a geometry that nobody has asked for since 1990.
        sector[21] = 0xF8
        put16(fatSectors, at: 22, in: &sector)
        put16(32, at: 24, in: &sector)
        put16(2, at: 26, in: &sector)
        // The extended signature: there are a serial number, a label and a type.
        sector[36] = 0x80
        sector[38] = 0x29
        put(Array("CIDATA     FAT12   ".utf8), at: 43, in: &sector)
        put16(0xAA55, at: 510, in: &sector)
        return sector
    }

    /// Two entries in three bytes.
    private static func pack(_ table: [UInt16]) -> [UInt8] {
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: table.count, by: 2) {
            let pair = UInt32(table[index]) | UInt32(index + 1 < table.count ? table[index + 1] : 0) << 12
            for shift in [0, 8, 16] { bytes.append(UInt8(truncatingIfNeeded: pair >> shift)) }
        }
        return bytes
    }

    private static func entry(_ name: String, attributes: UInt8, cluster: Int, size: Int) -> [UInt8] {
        var entry = Array(name.utf8) + [attributes] + [UInt8](repeating: 0, count: 20)
        // Written on the first day that FAT knows.
        put16(0x21, at: 24, in: &entry)
        put16(cluster, at: 26, in: &entry)
        put16(size & 0xFFFF, at: 28, in: &entry)
        put16(size >> 16, at: 30, in: &entry)
        return entry
    }

    /// A name of at most 13 letters, which stands before the entry that it belongs to.
    private static func longName(_ name: String, of short: String) -> [UInt8] {
        let letters = (Array(name.utf16) + [0] + [UInt16](repeating: 0xFFFF, count: 13)).prefix(13)
        var entry = [UInt8](repeating: 0, count: entrySize)
        // The first part, and the last.
        entry[0] = 0x41
        entry[11] = 0x0F
        entry[13] = short.utf8.reduce(0) { ($0 << 7 | $0 >> 1) &+ $1 }
        for (letter, place) in zip(letters, [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
            put16(Int(letter), at: place, in: &entry)
        }
        return entry
    }

    private static func put(_ some: [UInt8], at place: Int, in bytes: inout [UInt8]) {
        bytes.replaceSubrange(place..<place + some.count, with: some)
    }

    private static func put16(_ value: Int, at place: Int, in bytes: inout [UInt8]) {
        put([UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)], at: place, in: &bytes)
    }
}
