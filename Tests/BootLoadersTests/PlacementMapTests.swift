import GuestMemory
import Testing

@testable import BootLoaders

@Suite struct PlacementMapTests {
    let source = BootSource(flag: "--kernel", file: "k")

    func map(_ size: UInt64) throws -> PlacementMap {
        PlacementMap(try GuestMemory(size: size), reserved: MemoryMap.reservedPlacements)
    }

    @Test func allocationsFillGapsFromBelowAndFromAbove() throws {
        var map = try map(4 << 20)
        try map.claim("kernel", at: 0x10_0000, size: 0x1000, for: source)
        let low = try map.allocate("a", size: 100, alignment: 16, in: 0..<1 << 32, .lowest, for: source)
        #expect(low == 0x1000)
        let next = try map.allocate("b", size: 4096, alignment: 4096, in: 0..<1 << 32, .lowest, for: source)
        #expect(next == 0x2000)
        let big = try map.allocate("c", size: 0xA_0000, alignment: 1, in: 0..<1 << 32, .lowest, for: source)
        #expect(big == 0x10_1000)
        let high = try map.allocate("d", size: 100, alignment: 4096, in: 0..<1 << 32, .highest, for: source)
        #expect(high == 0x3F_F000)
        #expect(map.placements.map(\.start) == map.placements.map(\.start).sorted())
    }

    @Test func allocationsNeverUseTheBIOSAreas() throws {
        var map = try map(4 << 20)
        let start = try map.allocate("a", size: 0x9_F000, alignment: 4096, in: 0..<1 << 32, .lowest, for: source)
        #expect(start == 0x10_0000)
        #expect(throws: BootError.self) {
            try map.allocate("b", size: 0x400, alignment: 1, in: 0x9_FC00..<0x10_0000, .lowest, for: source)
        }
    }

    @Test func nothingSpansTheHoleBelow4GiB() throws {
        var map = try map(5 << 30)
        #expect(throws: BootError.self) {
            try map.claim("k", at: GuestMemory.holeStart - 4096, size: 8192, for: source)
        }
        try map.claim("k", at: GuestMemory.holeEnd, size: 8192, for: source)
        let top = try map.allocate("a", size: 4096, alignment: 4096, in: 0..<1 << 32, .highest, for: source)
        #expect(top == GuestMemory.holeStart - 4096)
    }

    @Test func aMapOfALargeMachineHasBothSidesOfTheHole() throws {
        let map = MemoryMap(try GuestMemory(size: 5 << 30))
        #expect(
            map.entries.suffix(2) == [
                MemoryMap.Entry(start: 0x10_0000, size: 0xBFF0_0000, kind: .ram),
                MemoryMap.Entry(start: 1 << 32, size: 2 << 30, kind: .ram),
            ])
    }
}
