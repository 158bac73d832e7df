import DavitTesting
import GuestMemory
import Testing
import VirtioQueue

extension GuestQueue {
    var setup: QueueSetup {
        QueueSetup(size: size, descriptorArea: descriptorArea, driverArea: driverArea, deviceArea: deviceArea)
    }
}

func take(
    _ device: inout VirtioQueue, _ chain: inout DescriptorChain, at place: SourceLocation = #_sourceLocation
) throws {
    let isThere = try device.pop(into: &chain)
    #expect(isThere, sourceLocation: place)
}

func takeNothing(_ device: inout VirtioQueue, at place: SourceLocation = #_sourceLocation) throws {
    var chain = DescriptorChain()
    let isThere = try device.pop(into: &chain)
    #expect(!isThere, sourceLocation: place)
}

func expect(
    _ device: inout VirtioQueue, _ expected: Bool, at place: SourceLocation = #_sourceLocation,
    _ body: (inout VirtioQueue) -> Bool
) {
    let answer = body(&device)
    #expect(answer == expected, sourceLocation: place)
}

/// Both kinds of ring, as a well-behaved driver uses them.
@Suite struct VirtioQueueTests {
    let memory = try! GuestMemory(size: 4 << 20)
    private let ring: UInt64 = 0x1000
    private let data: UInt64 = 0x10_0000

    private func make(
        isPacked: Bool, size: UInt16 = 8, _ more: VirtioFeatures = []
    ) throws -> (GuestQueue, VirtioQueue) {
        let guest = GuestQueue(memory, at: ring, size: size, isPacked: isPacked)
        let features: VirtioFeatures = [.version1, .indirectDescriptors]
        let device = try VirtioQueue(
            guest.setup, features: features.union(isPacked ? .packedRing : []).union(more), memory: memory)
        return (guest, device)
    }

    private func text(_ chain: DescriptorChain) -> String {
        var bytes = [UInt8](repeating: 0, count: chain.readableCount)
        _ = bytes.withUnsafeMutableBytes { chain.copyReadable(into: $0) }
        return String(decoding: bytes, as: UTF8.self)
    }

    @Test(arguments: [false, true]) func aChainGoesThereAndComesBack(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked: isPacked)
        var chain = DescriptorChain()
        try takeNothing(&device)
        try memory.write(bytes: Array("hello, world".utf8), at: GuestPhysicalAddress(data))
        let id = guest.add([
            GuestBuffer(data, 5), GuestBuffer(data + 5, 7), GuestBuffer(data + 100, 3, isWritable: true),
            GuestBuffer(data + 200, 50, isWritable: true),
        ])
        try take(&device, &chain)
        #expect(text(chain) == "hello, world")
        #expect(chain.writableCount == 53)
        #expect(Array("abcdef".utf8).withUnsafeBytes { chain.copyWritable(from: $0) } == 6)
        #expect(guest.takeUsed() == nil)
        device.push(chain, written: 6)
        expect(&device, true) { $0.publish() }
        let used = try #require(guest.takeUsed())
        #expect(used.id == id)
        #expect(used.written == 6)
        #expect(try memory.readBytes(at: GuestPhysicalAddress(data + 100), count: 3) == Array("abc".utf8))
        #expect(try memory.readBytes(at: GuestPhysicalAddress(data + 200), count: 3) == Array("def".utf8))
        try takeNothing(&device)
    }

    @Test(arguments: [false, true]) func indirectTablesAreFollowed(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked: isPacked)
        try memory.write(bytes: Array("indirect".utf8), at: GuestPhysicalAddress(data))
        guest.addIndirect(
            [GuestBuffer(data, 2), GuestBuffer(data + 2, 6), GuestBuffer(data + 100, 4, isWritable: true)],
            table: 0x8000)
        var chain = DescriptorChain()
        try take(&device, &chain)
        #expect(text(chain) == "indirect")
        #expect(chain.writableCount == 4)
    }

    /// Many chains of changing lengths around a ring, given back out of order.
    @Test(arguments: [(false, 8 as UInt16), (true, 8), (true, 7)])
    func ringsWrapAround(isPacked: Bool, size: UInt16) throws {
        var (guest, device) = try make(isPacked: isPacked, size: size)
        for round in 0..<1000 as Range<UInt64> {
            let first = guest.add([GuestBuffer(data, 1)])
            let second = guest.add(
                (0...round % 3).map { GuestBuffer(data + $0, 1, isWritable: true) })
            var (one, two) = (DescriptorChain(), DescriptorChain())
            try take(&device, &one)
            try take(&device, &two)
            #expect(two.writableCount == Int(round % 3) + 1)
            // A packed ring's driver learns from the id how far to go on; ours remembers lengths by id, so they must differ.
            device.push(two, written: 1)
            device.push(one, written: 0)
            _ = device.publish()
            #expect(guest.takeUsed()?.id == second)
            #expect(guest.takeUsed()?.id == first)
        }
    }

    @Test(arguments: [false, true]) func aDriverMaySpareInterrupts(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked: isPacked)
        // Split: VIRTQ_AVAIL_F_NO_INTERRUPT; packed: RING_EVENT_FLAGS_DISABLE.
        try memory.write(UInt16(1), at: GuestPhysicalAddress(guest.driverArea + (isPacked ? 2 : 0)))
        guest.add([GuestBuffer(data, 1)])
        var chain = DescriptorChain()
        try take(&device, &chain)
        device.push(chain, written: 0)
        expect(&device, false) { $0.publish() }
    }

    @Test func theEventIndexTellsWhenASplitRingInterrupts() throws {
        var (guest, device) = try make(isPacked: false, .eventIndex)
        func setUsedEvent(_ index: UInt16) throws {
            try memory.write(index, at: GuestPhysicalAddress(guest.driverArea + 4 + 16))
        }
        try setUsedEvent(1)
        var answers: [Bool] = []
        for _ in 0..<4 {
            guest.add([GuestBuffer(data, 1)])
            var chain = DescriptorChain()
            _ = try device.pop(into: &chain)
            device.push(chain, written: 0)
            answers.append(device.publish())
        }
        #expect(answers == [false, true, false, false])
        // The device's own event index, behind the used ring, asks for the next buffer.
        expect(&device, false) { $0.enableNotifications() }
        #expect(try memory.read(UInt16.self, at: GuestPhysicalAddress(guest.deviceArea + 4 + 64)) == 4)
    }

    @Test func theEventIndexTellsWhenAPackedRingInterrupts() throws {
        var (guest, device) = try make(isPacked: true, .eventIndex)
        // At descriptor 2, first time around; RING_EVENT_FLAGS_DESC.
        try memory.write(UInt16(2 | 1 << 15), at: GuestPhysicalAddress(guest.driverArea))
        try memory.write(UInt16(2), at: GuestPhysicalAddress(guest.driverArea + 2))
        var answers: [Bool] = []
        for _ in 0..<5 {
            guest.add([GuestBuffer(data, 1)])
            var chain = DescriptorChain()
            _ = try device.pop(into: &chain)
            device.push(chain, written: 0)
            answers.append(device.publish())
        }
        #expect(answers == [false, false, true, false, false])
        expect(&device, false) { $0.enableNotifications() }
        #expect(try memory.read(UInt16.self, at: GuestPhysicalAddress(guest.deviceArea)) == 5 | 1 << 15)
    }

    @Test(arguments: [false, true]) func whatCameBeforeNotificationsWereOnIsNotLost(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked: isPacked)
        device.disableNotifications()
        guest.add([GuestBuffer(data, 1)])
        expect(&device, true) { $0.enableNotifications() }
    }
}
