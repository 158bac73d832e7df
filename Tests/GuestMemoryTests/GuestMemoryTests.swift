import Glibc
import GuestMemory
import HostLinux
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

    @Test(arguments: [true, false]) func fillingSkipsTheHole(isShared: Bool) throws {
        let memory = try GuestMemory(size: 4 << 30, backing: GuestMemoryBacking(isShared: isShared))
        let bytes: [UInt8] = [1, 2, 3, 4]
        for address in [0x1000, GuestMemory.holeStart - 4, GuestMemory.holeEnd, GuestMemory.holeEnd + (1 << 30) - 4] {
            try bytes.withUnsafeBytes { try memory.fill($0, at: GuestPhysicalAddress(address)) }
            #expect(try memory.readBytes(at: GuestPhysicalAddress(address), count: 4) == bytes)
        }
        for address in [GuestMemory.holeStart - 3, GuestMemory.holeEnd + (1 << 30), .max] {
            #expect(throws: SystemError("pwrite", code: EFAULT)) {
                try bytes.withUnsafeBytes { try memory.fill($0, at: GuestPhysicalAddress(address)) }
            }
        }
    }

    @Test(arguments: [true, false]) func discardedPagesReadAsZeros(isShared: Bool) throws {
        let memory = try GuestMemory(size: 1 << 20, backing: GuestMemoryBacking(isShared: isShared))
        try memory.write(UInt64.max, at: GuestPhysicalAddress(0x2000))
        #expect(memory.discard(at: GuestPhysicalAddress(0x2000), count: 0x1000))
        #expect(try memory.read(UInt64.self, at: GuestPhysicalAddress(0x2000)) == 0)
    }
}
