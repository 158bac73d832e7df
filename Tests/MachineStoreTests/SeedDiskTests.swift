import DavitTesting
import Glibc
import Testing

@testable import MachineStore

/// cloud-init's seed, read by rules of FAT alone.
@Suite struct SeedDiskTests {
    /// Files by their long names, and the volume's label.
    private func read(_ volume: [UInt8]) -> (files: [String: [UInt8]], label: String) {
        func number(_ place: Int, _ count: Int = 2) -> Int {
            (0..<count).reduce(0) { $0 | Int(volume[place + $1]) << ($1 * 8) }
        }
        let sector = number(11)
        let cluster = Int(volume[13]) * sector
        let table = number(14) * sector
        let root = table + Int(volume[16]) * number(22) * sector
        let data = root + number(17) * 32
        #expect(volume[510...511].elementsEqual([0x55, 0xAA]))
        #expect(number(19) * sector == volume.count)
        // Fewer clusters than that are what makes it FAT12.
        #expect((volume.count - data) / cluster < 4085)
        func next(_ index: Int) -> Int {
            let pair = number(table + index / 2 * 3, 3)
            return index % 2 == 0 ? pair & 0xFFF : pair >> 12
        }
        var files: [String: [UInt8]] = [:]
        var label = ""
        var name: [UInt16] = []
        for place in stride(from: root, to: data, by: 32) where volume[place] != 0 {
            switch volume[place + 11] {
            case 0x0F:
                name = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30].map { UInt16(number(place + $0)) }
            case 0x08: label = String(decoding: volume[place..<place + 11], as: UTF8.self)
            default:
                var contents: [UInt8] = []
                var index = number(place + 26)
                while index != 0 && index < 0xFF8 {
                    let start = data + (index - 2) * cluster
                    contents += volume[start..<start + cluster]
                    index = next(index)
                }
                let size = number(place + 28, 4)
                #expect(contents.count - size < cluster)
                files[String(decoding: name.prefix { $0 != 0 }, as: UTF16.self)] = Array(contents.prefix(size))
            }
        }
        return (files, label)
    }

    @Test(arguments: [0, 1, 1024, 1025, 100_001, SeedDisk.maximumSize])
    func everySizeIsReadBack(size: Int) {
        let userData = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
        let volume = read(SeedDisk(userData: userData, metaData: Array("instance-id: x\n".utf8)).bytes)
        #expect(volume.label == "CIDATA     ")
        #expect(volume.files == ["user-data": userData, "meta-data": Array("instance-id: x\n".utf8)])
    }

    @Test func aFileOfTheUsers() throws {
        let directory = try TemporaryDirectory()
        let path = directory["user-data"]
        try SmallFile.write(path, "#cloud-config\npackages: [nginx]\n")
        let files = read(try SeedDisk(userData: path, hostname: "web").bytes).files
        #expect(files["user-data"] == Array("#cloud-config\npackages: [nginx]\n".utf8))
        let metaData = String(decoding: files["meta-data"] ?? [], as: UTF8.self)
        #expect(metaData.hasPrefix("instance-id: davit-") && metaData.hasSuffix("\nlocal-hostname: web\n"))
    }

    @Test func whatCloudInitWouldNotKnow() throws {
        let directory = try TemporaryDirectory()
        #expect(throws: StoreError.self) { try SeedDisk(userData: directory["none"], hostname: nil) }
        try SmallFile.write(directory["yaml"], "packages: [nginx]\n")
        #expect(throws: StoreError.self) { try SeedDisk(userData: directory["yaml"], hostname: nil) }
    }
}
