import DavitTesting
import MachineModel
import Testing
import VirtioDevices
import VirtioQueue

@Suite struct NetTests {
    private let port = MemoryPort()
    private let out: UInt64 = 0x10_0000
    private let into: UInt64 = 0x20_0000
    private let frame = [UInt8](0..<60)
    private static let mergeable = VirtioFeatures(bit: 15)

    private func make(pairs: Int = 1, isPacked: Bool = false, without refused: VirtioFeatures = []) -> DeviceBench {
        DeviceBench(
            VirtioNet(port: port, name: "net0", mac: [2, 0, 0, 1, 2, 3], pairCount: pairs), isPacked: isPacked,
            without: refused)
    }

    private func send(_ bench: DeviceBench, _ bytes: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 12)) {
        // Frames that wait must not lie over one another.
        let place = out + UInt64(bytes.first ?? 0) * 0x100
        bench.put(header + bytes, at: place)
        bench.queues[1].add([GuestBuffer(place, UInt32(12 + bytes.count))])
        bench.device.notify(queue: 1)
    }

    @Test(arguments: [false, true]) func framesGoOut(isPacked: Bool) {
        let bench = make(isPacked: isPacked)
        send(bench, frame)
        #expect(port.sent.map(\.bytes) == [frame])
        #expect(bench.queues[1].takeUsed()?.written == 0)
    }

    @Test func aFullPortIsWaitedForInOrder() {
        let bench = make()
        port.room = 1
        for byte in 1...4 as ClosedRange<UInt8> { send(bench, [UInt8](repeating: byte, count: 60)) }
        #expect(port.sent.count == 1)
        port.room = 2
        send(bench, [UInt8](repeating: 5, count: 60))
        port.room = .max
        #expect(port.sent.map { $0.bytes[0] } == [1, 2, 3, 4, 5])
        #expect((0..<5).allSatisfy { _ in bench.queues[1].takeUsed() != nil })
    }

    @Test(arguments: [false, true]) func framesComeIn(isPacked: Bool) {
        let bench = make(isPacked: isPacked)
        #expect(!port.receive(frame))
        bench.queues[0].add([GuestBuffer(into, 1600, isWritable: true)])
        bench.device.notify(queue: 0)
        #expect(port.resumes == 1)
        #expect(port.receive(frame))
        #expect(bench.queues[0].takeUsed()?.written == 72)
        #expect(bench.bytes(at: into, 72) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0] + frame)
        #expect(bench.interrupts == [0])
    }

    @Test func aLargeFrameFillsSeveralBuffers() {
        let bench = make()
        let large = (0..<5000).map { UInt8(truncatingIfNeeded: $0) }
        for index in 0..<2 as Range<UInt64> {
            bench.queues[0].add([GuestBuffer(into + index * 0x1000, 2048, isWritable: true)])
        }
        // Two are taken and kept; the third makes it enough.
        #expect(!port.receive(large))
        bench.queues[0].add([GuestBuffer(into + 0x2000, 2048, isWritable: true)])
        #expect(port.receive(large))
        #expect((0..<3).map { _ in bench.queues[0].takeUsed()?.written } == [2048, 2048, 5012 - 4096])
        #expect(bench.bytes(at: into + 10, 2) == [3, 0])
        #expect(bench.bytes(at: into + 0x1000, 2048) == Array(large[2036..<4084]))
    }

    @Test func withoutMergeableBuffersALargeFrameIsLost() {
        let bench = make(without: Self.mergeable)
        bench.queues[0].add([GuestBuffer(into, 100, isWritable: true)])
        #expect(port.receive([UInt8](repeating: 1, count: 1500)))
        #expect(bench.queues[0].takeUsed()?.written == 0)
    }

    @Test func offloadsAreAgreedOnFromEndToEnd() {
        let bench = make(without: VirtioFeatures(bit: 8))
        #expect(port.receiveOffloads == [.checksum, .tcp4, .ecn])
        // Checksum from byte 34 on, at 16; TCP segments of 1448.
        send(bench, frame, header: [1, 1, 54, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0])
        #expect(port.sent[0].header.checksumStart == 34 && port.sent[0].header.segmentSize == 1448)
        let plain = DeviceBench(
            VirtioNet(port: MemoryPort(offloads: []), name: "net1", mac: [2, 0, 0, 0, 0, 0], pairCount: 1))
        #expect(plain.device.features.isDisjoint(with: [VirtioFeatures(bit: 0), VirtioFeatures(bit: 11)]))
    }

    @Test func theConfigurationTellsAddressLinkAndMTU() {
        let bench = make(pairs: 2)
        #expect(bench.device.configuration() == [2, 0, 0, 1, 2, 3, 1, 0, 2, 0, 0xDC, 5])
        port.isUp = false
        #expect(bench.configurationChanges == 1)
        #expect(Array(bench.device.configuration()[6..<8]) == [0, 0])
    }

    private func control(_ bench: DeviceBench, queue: Int, _ command: [UInt8]) -> UInt8 {
        bench.put(command, at: out)
        bench.put(UInt8(0xEE), at: into)
        bench.queues[queue].add([GuestBuffer(out, UInt32(command.count)), GuestBuffer(into, 1, isWritable: true)])
        bench.device.notify(queue: queue)
        return bench.bytes(at: into, 1)[0]
    }

    @Test func theControlQueueSetsAddressAndPairs() {
        let bench = make(pairs: 2)
        #expect(control(bench, queue: 4, [1, 1, 2, 9, 9, 9, 9, 9]) == 0)
        #expect(Array(bench.device.configuration()[0..<6]) == [2, 9, 9, 9, 9, 9])
        #expect(control(bench, queue: 4, [4, 0, 2, 0]) == 0)
        for bad in [
            [4, 0, 0, 0], [4, 0, 3, 0], [4, 0, 0xFF, 0xFF], [4, 0], [1, 1, 2], [9, 9], [0],
            [5, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] as [[UInt8]] {
            #expect(control(bench, queue: 4, bad) == 1)
        }
        // With several pairs, frames of several flows spread.
        for queue in [0, 2] {
            for _ in 0..<16 { bench.queues[queue].add([GuestBuffer(into, 1600, isWritable: true)]) }
        }
        for flow in 0..<8 as Range<UInt8> { #expect(port.receive([UInt8](repeating: flow, count: 60))) }
        #expect(bench.queues[0].takeUsed() != nil && bench.queues[2].takeUsed() != nil)
    }

    @Test func withoutMultiQueueTheControlQueueFollowsTheFirstPair() {
        let bench = make(pairs: 2, without: VirtioFeatures(bit: 22))
        #expect(control(bench, queue: 2, [0, 0, 1]) == 0)
        #expect(bench.interrupts == [2])
    }

    // MARK: hostile drivers

    /// 4, 11: frames and headers that make no sense are lost, and their buffers come back.
    @Test func senselessFramesAreLost() {
        let bench = make(without: VirtioFeatures(bit: 12))
        send(bench, [])
        send(bench, [1, 2, 3])
        send(bench, frame, header: [1, 0, 0, 0, 0, 0, 59, 0, 0, 0, 0, 0])
        send(bench, frame, header: [1, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0])
        send(bench, frame, header: [1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0])
        send(bench, frame, header: [0, 1, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0])
        send(bench, frame, header: [1, 4, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0])
        send(bench, frame, header: [1, 3, 0, 0, 100, 0, 34, 0, 16, 0, 0, 0])
        bench.queues[1].add([GuestBuffer(out, 5)])
        bench.queues[1].add([GuestBuffer(into, 100, isWritable: true)])
        bench.device.notify(queue: 1)
        #expect(port.sent == [])
        #expect((0..<10).allSatisfy { _ in bench.queues[1].takeUsed() != nil })
        #expect(bench.failures == [])
    }

    /// 4: receive buffers with no room at all, or less than a header.
    @Test func receiveBuffersWithoutRoomComeBack() {
        let bench = make(without: Self.mergeable)
        bench.queues[0].add([GuestBuffer(into, 16)])
        bench.queues[0].add([GuestBuffer(into, 4, isWritable: true)])
        #expect(port.receive(frame) && port.receive(frame))
        #expect(bench.queues[0].takeUsed() != nil && bench.queues[0].takeUsed() != nil)
        let other = make()
        for _ in 0..<16 { other.queues[0].add([GuestBuffer(into, 5, isWritable: true)]) }
        #expect(port.receive(frame))
        #expect(other.queues[0].takeUsed()?.written == 5)
    }

    /// 9: a reset lets go of what waits on either side.
    @Test func aResetDropsWhatWaits() {
        let bench = make()
        port.room = 0
        send(bench, frame)
        bench.queues[0].add([GuestBuffer(into, 20, isWritable: true)])
        #expect(!port.receive(frame))
        let isDone = Flag()
        bench.device.reset { isDone.set() }
        #expect(isDone.isSet)
        port.room = .max
        #expect(port.receive(frame))
        #expect(port.sent == [] && bench.interrupts == [])
    }

    /// 9: so does the reset of one queue, and the other goes on.
    @Test func aQueueThatIsResetLetsGo() {
        let bench = make()
        port.room = 0
        send(bench, frame)
        bench.queues[0].add([GuestBuffer(into, 20, isWritable: true)])
        #expect(!port.receive(frame))
        #expect(bench.resetQueue(1))
        port.room = .max
        send(bench, frame)
        #expect(port.sent == [])
        bench.queues[0].add([GuestBuffer(into, 1600, isWritable: true)])
        #expect(port.receive(frame))
        #expect(bench.queues[0].takeUsed() != nil && bench.queues[0].takeUsed() != nil)
        #expect(bench.resetQueue(0) && bench.resetQueue(2))
        #expect(port.receive(frame) && bench.queues[0].takeUsed() == nil)
    }

    /// 1: a spoilt ring stops the card, whichever thread finds it.
    @Test func aSpoiltReceiveRingStopsTheCard() {
        let bench = make()
        bench.queues[0].setAvailableIndex(100)
        #expect(port.receive(frame))
        #expect(bench.failures == [.availableIndex(100)])
        send(bench, frame)
        #expect(port.sent == [])
    }
}
