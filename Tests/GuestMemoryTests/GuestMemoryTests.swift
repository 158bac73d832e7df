import GuestMemory
import Testing

@Suite struct GuestMemoryTests {
    @Test func smallMemoryIsOneRegionAtZero() throws {
        let memory = try GuestMemory(size: 1 << 20)
        #expect(memory.regions.map(\.start.rawValue) == [0])
        #expect(memory.regions.map(\.size) == [1 << 20])
    }

    @Test func largeMemoryGoesOnAboveTheHole() throws {
        let memory = try GuestMemory(size: 4 << 30)
        #expect(memory.regions.map(\.start.rawValue) == [0, GuestMemory.holeEnd])
        #expect(memory.regions.map(\.size) == [GuestMemory.holeStart, 1 << 30])
        try memory.write(UInt64(0x1122_3344_5566_7788), at: GuestPhysicalAddress(GuestMemory.holeEnd))
        #expect(try memory.read(UInt32.self, at: GuestPhysicalAddress(GuestMemory.holeEnd + 4)) == 0x1122_3344)
    }

    @Test(arguments: [[0xFFFFF, 2], [0x10_0000, 1], [0xFFFFF, UInt64.max], [UInt64.max, 1], [0xC000_0000, 4]])
    func nothingOutsideRAMIsReached(addressAndCount: [UInt64]) throws {
        let memory = try GuestMemory(size: 1 << 20)
        #expect(memory.pointer(at: GuestPhysicalAddress(addressAndCount[0]), count: addressAndCount[1]) == nil)
    }

    @Test func fileOffsetsSkipTheHole() throws {
        let memory = try GuestMemory(size: 4 << 30)
        #expect(memory.fileOffset(of: GuestPhysicalAddress(0x1000), count: 16) == 0x1000)
        #expect(
            memory.fileOffset(of: GuestPhysicalAddress(GuestMemory.holeEnd + 8), count: 8) == GuestMemory.holeStart + 8)
        #expect(memory.fileOffset(of: GuestPhysicalAddress(GuestMemory.holeStart - 8), count: 9) == nil)
        #expect(memory.fileOffset(of: GuestPhysicalAddress(GuestMemory.holeEnd + (1 << 30)), count: 1) == nil)
        #expect(memory.fileOffset(of: GuestPhysicalAddress(0), count: .max) == nil)
    }
}
