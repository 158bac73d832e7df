import DavitTesting
import GuestMemory
import Testing
import VirtioDevices
import VirtioQueue

@Suite struct BalloonTests {
    private let list: UInt64 = 0x10_0000
    private let page: UInt64 = 0x40_0000

    /// The balloon is of the bench's own memory.
    private func make(without refused: VirtioFeatures = []) -> (DeviceBench, VirtioBalloon) {
        let memory = try! GuestMemory(size: 8 << 20)
        let balloon = VirtioBalloon(name: "balloon", memory: memory)
        return (DeviceBench(balloon, memory: memory, without: refused), balloon)
    }

    private func inflate(_ bench: DeviceBench, _ pages: [UInt32]) {
        for (index, number) in pages.enumerated() { bench.put(number, at: list + UInt64(index) * 4) }
        bench.queues[0].add([GuestBuffer(list, UInt32(pages.count * 4))])
        bench.device.notify(queue: 0)
    }

    @Test func pagesInTheBalloonGoBackToTheHost() {
        let (bench, balloon) = make()
        for index in 0..<4 as Range<UInt64> { bench.put([UInt8](repeating: 7, count: 4096), at: page + index << 12) }
        inflate(bench, [0x400, 0x401, 0x403])
        #expect(balloon.givenBack == 3 << 12)
        #expect(bench.bytes(at: page, 1) == [0] && bench.bytes(at: page + 0x1000, 1) == [0])
        #expect(bench.bytes(at: page + 0x2000, 1) == [7] && bench.bytes(at: page + 0x3000, 1) == [0])
        #expect(bench.queues[0].takeUsed() != nil)
    }

    /// 11: the same page twice, pages that are no RAM, a list that ends in the midst of a number.
    @Test func senselessListsDoNoHarm() {
        let (bench, _) = make()
        inflate(bench, [0x400, 0x400, 0x400, 0xFFFF_FFFF, 0x800, 0xFEE00, 0x7FF])
        bench.queues[0].add([GuestBuffer(list, 3)])
        bench.queues[0].add([GuestBuffer(list, 64, isWritable: true)])
        bench.device.notify(queue: 0)
        #expect((0..<3).allSatisfy { _ in bench.queues[0].takeUsed() != nil })
        #expect(bench.failures == [])
    }

    @Test func reportedPagesGoBackToTheHost() {
        for refused in [[], VirtioFeatures(bit: 1)] {
            let (bench, balloon) = make(without: refused)
            let queue = refused.isEmpty ? 3 : 2
            bench.put([UInt8](repeating: 7, count: 8192), at: page)
            // What is no whole page stays.
            bench.queues[queue].add([
                GuestBuffer(page, 4096, isWritable: true), GuestBuffer(page + 4096, 100, isWritable: true),
            ])
            bench.device.notify(queue: queue)
            #expect(balloon.givenBack == 4096)
            #expect(bench.bytes(at: page, 1) == [0] && bench.bytes(at: page + 4096, 1) == [7])
        }
    }

    @Test func theTargetIsTheGuestsToReadAndTheSizeItsToWrite() {
        let (bench, balloon) = make()
        balloon.setTarget(3 << 20)
        #expect(bench.configurationChanges == 1)
        #expect(bench.device.configuration() == [0, 3, 0, 0, 0, 0, 0, 0])
        bench.device.writeConfiguration(offset: 4, [0, 2, 0, 0])
        #expect(balloon.size == 2 << 20)
        bench.device.writeConfiguration(offset: 0, [9, 9, 9, 9])
        bench.device.writeConfiguration(offset: 4, [1])
        #expect(bench.device.configuration() == [0, 3, 0, 0, 0, 2, 0, 0])
    }

    @Test func statisticsWaitForTheNextQuestion() {
        let (bench, balloon) = make()
        // Total memory, then a tag that nobody knows.
        bench.put([5, 0, 0, 0, 128, 0, 0, 0, 0, 0, 99, 0, 1, 1, 1, 1, 1, 1, 1, 1], at: list)
        bench.queues[2].add([GuestBuffer(list, 20)])
        bench.device.notify(queue: 2)
        #expect(balloon.statistics == [.totalMemory: 8 << 20])
        #expect(bench.queues[2].takeUsed() == nil)
        balloon.askForStatistics()
        #expect(bench.queues[2].takeUsed() != nil)
        bench.queues[2].add([GuestBuffer(list, 20)])
        bench.device.notify(queue: 2)
        let isDone = Flag()
        bench.device.reset { isDone.set() }
        #expect(isDone.isSet)
    }
}
