import DavitTesting
import GuestMemory
import Testing
import VirtioQueue

/// What a hostile driver writes into a ring: each is found, none reaches memory outside the guest.
@Suite struct HostileRingTests {
    let memory = try! GuestMemory(size: 4 << 20)
    private let ring: UInt64 = 0x1000
    private let data: UInt64 = 0x10_0000
    private let table: UInt64 = 0x8000
    private let size: UInt16 = 8

    private func make(_ isPacked: Bool) throws -> (GuestQueue, VirtioQueue) {
        let guest = GuestQueue(memory, at: ring, size: size, isPacked: isPacked)
        let features: VirtioFeatures = [.version1, .indirectDescriptors]
        return (
            guest,
            try VirtioQueue(guest.setup, features: features.union(isPacked ? .packedRing : []), memory: memory)
        )
    }

    private func failure(of device: inout VirtioQueue) -> VirtioError? {
        var chain = DescriptorChain()
        do throws(VirtioError) {
            _ = try device.pop(into: &chain)
            return nil
        } catch {
            return error
        }
    }

    private func expectFailure(
        _ device: inout VirtioQueue, _ expected: VirtioError?, at place: SourceLocation = #_sourceLocation
    ) {
        let failure = failure(of: &device)
        #expect(failure == expected, sourceLocation: place)
    }

    // MARK: 1

    @Test func anAvailableIndexFurtherAheadThanTheQueueIsLong() throws {
        var (guest, device) = try make(false)
        guest.setAvailableIndex(size + 1)
        expectFailure(&device, .availableIndex(size + 1))
        (guest, device) = try make(false)
        guest.setAvailableIndex(UInt16.max)
        expectFailure(&device, .availableIndex(UInt16.max))
    }

    // MARK: 2

    @Test func aLoopOfDescriptors() throws {
        var (guest, device) = try make(false)
        guest.setDescriptor(0, address: data, count: 1, GuestQueue.next, 1)
        guest.setDescriptor(1, address: data, count: 1, GuestQueue.next, 0)
        guest.makeAvailable(0)
        expectFailure(&device, .chainTooLong)
    }

    @Test func aPackedChainWithoutAnEnd() throws {
        var (guest, device) = try make(true)
        for _ in 0..<size { guest.addRaw(address: data, count: 1, flags: GuestQueue.next) }
        expectFailure(&device, .chainTooLong)
    }

    @Test func descriptorsOutsideTheTable() throws {
        var (guest, device) = try make(false)
        guest.makeAvailable(size)
        expectFailure(&device, .descriptorIndex(size))
        (guest, device) = try make(false)
        guest.addRaw(address: data, count: 1, flags: GuestQueue.next, next: 0xFFFF)
        expectFailure(&device, .descriptorIndex(0xFFFF))
    }

    @Test(arguments: [false, true]) func malformedIndirectTables(isPacked: Bool) throws {
        // Empty, of half a descriptor, longer than the queue, with a next.
        for (count, flags) in [(0, 4), (24, 4), (UInt32(size) * 16 + 16, 4), (16, 5)] as [(UInt32, UInt16)] {
            var (guest, device) = try make(isPacked)
            guest.addRaw(address: table, count: count, flags: flags)
            expectFailure(&device, .indirectTable)
        }
        // Nested.
        var (guest, device) = try make(isPacked)
        guest.setDescriptor(in: table, 0, address: table, count: 16, isPacked ? 0 : 4, isPacked ? 4 : 0)
        guest.addRaw(address: table, count: 16, flags: GuestQueue.indirect)
        expectFailure(&device, .indirectTable)
        // Misaligned ones are as good as others.
        (guest, device) = try make(isPacked)
        guest.addIndirect([GuestBuffer(data, 1)], table: table + 1)
        expectFailure(&device, nil)
        // Not in RAM.
        (guest, device) = try make(isPacked)
        guest.addRaw(address: memory.size - 8, count: 16, flags: GuestQueue.indirect)
        expectFailure(&device, .bufferAddress(memory.size - 8))
    }

    @Test func aLoopInsideAnIndirectTable() throws {
        var (guest, device) = try make(false)
        guest.setDescriptor(in: table, 0, address: data, count: 1, GuestQueue.next, 0)
        guest.addRaw(address: table, count: 16, flags: GuestQueue.indirect)
        expectFailure(&device, .chainTooLong)
        (guest, device) = try make(false)
        guest.setDescriptor(in: table, 0, address: data, count: 1, GuestQueue.next, 1)
        guest.addRaw(address: table, count: 16, flags: GuestQueue.indirect)
        expectFailure(&device, .chainTooLong)
    }

    @Test func indirectTablesThatWereNotNegotiated() throws {
        let guest = GuestQueue(memory, at: ring, size: size)
        var device = try VirtioQueue(guest.setup, features: .version1, memory: memory)
        guest.addIndirect([GuestBuffer(data, 1)], table: table)
        expectFailure(&device, .indirectTable)
    }

    @Test(arguments: [false, true]) func buffersOfNoBytes(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked)
        guest.add([GuestBuffer(data, 0), GuestBuffer(data, 0, isWritable: true)])
        var chain = DescriptorChain()
        try take(&device, &chain)
        #expect(chain.readableCount == 0 && chain.writableCount == 0)
        device.push(chain, written: 0)
        _ = device.publish()
        #expect(guest.takeUsed() != nil)
    }

    // MARK: 3

    @Test(arguments: [false, true]) func buffersOutsideRAM(isPacked: Bool) throws {
        let places: [(UInt64, UInt32)] = [
            (memory.size - 4, 5), (memory.size, 1), (0xC000_0000, 16), (0xFEE0_0000, 4), (UInt64.max - 3, 8),
            (UInt64.max, 1), (data, UInt32.max),
        ]
        for (address, count) in places {
            var (guest, device) = try make(isPacked)
            guest.add([GuestBuffer(address, count)])
            expectFailure(&device, .bufferAddress(address))
        }
    }

    /// What the device writes there spoils the guest's ring, and nothing else.
    @Test(arguments: [false, true]) func aBufferOverTheRingItself(isPacked: Bool) throws {
        var (guest, device) = try make(isPacked)
        guest.add([GuestBuffer(ring, 4096, isWritable: true)])
        var chain = DescriptorChain()
        try take(&device, &chain)
        [UInt8](repeating: 0xFF, count: 4096).withUnsafeBytes { _ = chain.copyWritable(from: $0) }
        device.push(chain, written: 4096)
        _ = device.publish()
        for _ in 0..<100 where failure(of: &device) != nil { break }
    }

    // MARK: 6

    @Test func ringsThatCannotBe() throws {
        func failure(_ setup: QueueSetup, _ features: VirtioFeatures = .version1) -> VirtioError? {
            do throws(VirtioError) {
                _ = try VirtioQueue(setup, features: features, memory: memory)
                return nil
            } catch {
                return error
            }
        }
        func setup(
            _ size: UInt16, _ descriptors: UInt64 = 0x1000, _ driver: UInt64 = 0x2000, _ device: UInt64 = 0x3000
        ) -> QueueSetup {
            QueueSetup(size: size, descriptorArea: descriptors, driverArea: driver, deviceArea: device)
        }
        #expect(failure(setup(0)) == .queueSize(0))
        #expect(failure(setup(7)) == .queueSize(7))
        #expect(failure(setup(0), .packedRing) == .queueSize(0))
        #expect(failure(setup(40000), .packedRing) == .queueSize(40000))
        #expect(failure(setup(8, 0x1008)) == .ringAddress(0x1008))
        #expect(failure(setup(8, 0x1000, 0x2001)) == .ringAddress(0x2001))
        #expect(failure(setup(8, 0x1000, 0x2000, 0x3002)) == .ringAddress(0x3002))
        #expect(failure(setup(8, 0x1000, 0x2002), .packedRing) == .ringAddress(0x2002))
        for address in [memory.size - 16, 0xFEE0_0000, UInt64.max & ~15] {
            #expect(failure(setup(8, address)) == .ringAddress(address))
            #expect(failure(setup(8, 0x1000, address)) == .ringAddress(address))
            #expect(failure(setup(8, 0x1000, 0x2000, address)) == .ringAddress(address))
        }
    }

    /// All three parts at one place: whatever comes of it, it ends.
    @Test(arguments: [false, true]) func ringsThatOverlap(isPacked: Bool) throws {
        for seed in 0..<200 as Range<UInt64> {
            var random = SplitMix(state: seed)
            let setup = QueueSetup(size: 8, descriptorArea: ring, driverArea: ring, deviceArea: ring)
            let features: VirtioFeatures = [.version1, .indirectDescriptors, .eventIndex]
            var device = try VirtioQueue(
                setup, features: features.union(isPacked ? .packedRing : []), memory: memory)
            for _ in 0..<50 {
                let place = GuestPhysicalAddress(ring + random.next() % 256)
                try memory.write(UInt16(truncatingIfNeeded: random.next()), at: place)
                var chain = DescriptorChain()
                guard let isThere = try? device.pop(into: &chain) else { break }
                if isThere { device.push(chain, written: chain.writableCount) }
                _ = device.publish()
                _ = device.enableNotifications()
            }
        }
    }

    /// Random bytes for a ring, seeds 0 to 1999: nothing traps, and the pieces of every chain lie in the guest's RAM.
    @Test(arguments: [false, true]) func ringsOfRandomBytes(isPacked: Bool) throws {
        for seed in 0..<2000 as Range<UInt64> {
            var random = SplitMix(state: seed)
            var (guest, device) = try make(isPacked)
            for _ in 0..<30 {
                // Small numbers, so that some of it makes sense.
                guest.setDescriptor(
                    UInt16(random.next() % 8), address: random.next() % (5 << 20), count: UInt32(random.next() % 64),
                    UInt16(truncatingIfNeeded: random.next() % (isPacked ? 8 : 8)),
                    UInt16(truncatingIfNeeded: isPacked ? random.next() : random.next() % 9))
                if !isPacked { guest.makeAvailable(UInt16(random.next() % 9)) }
                var chain = DescriptorChain()
                guard let isThere = try? device.pop(into: &chain) else { break }
                guard isThere else { continue }
                for piece in chain.readable + chain.writable {
                    let offset = piece.iov_base.map { $0 - memory.base } ?? -1
                    #expect(offset >= 0 && offset + piece.iov_len <= Int(memory.size), "seed \(seed)")
                }
                device.push(chain, written: chain.writableCount)
                _ = device.publish()
            }
        }
    }
}

/// A small random source with a seed to print (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators).
struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}
