import DavitTesting
import GuestMemory
import MachineModel
import Synchronization
import Testing
import VirtioDevices
import VirtioQueue

@Suite struct BlockTests {
    private let header: UInt64 = 0x10_0000
    private let data: UInt64 = 0x11_0000
    private let status: UInt64 = 0x12_0000

    private func make(
        _ disk: MemoryDisk, queues: Int = 1, isPacked: Bool = false, without refused: VirtioFeatures = []
    ) -> DeviceBench {
        DeviceBench(
            VirtioBlock(disk: disk, name: "disk0", serial: "DAVIT-0001", queueCount: queues) { _ in },
            isPacked: isPacked, without: refused)
    }

    /// Makes a request available: header, `count` bytes at `data`, status.
    private func add(
        _ bench: DeviceBench, type: UInt32, sector: UInt64 = 0, count: UInt32 = 0, isRead: Bool = false, queue: Int = 0
    ) {
        bench.put(type, at: header)
        bench.put(UInt32(0), at: header + 4)
        bench.put(sector, at: header + 8)
        bench.put(UInt8(0xEE), at: status)
        var buffers = [GuestBuffer(header, 16)]
        if count > 0 { buffers.append(GuestBuffer(data, count, isWritable: isRead)) }
        bench.queues[queue].add(buffers + [GuestBuffer(status, 1, isWritable: true)])
        bench.device.notify(queue: queue)
    }

    private func result(_ bench: DeviceBench) -> UInt8 { bench.bytes(at: status, 1)[0] }

    @Test(arguments: [false, true]) func whatIsWrittenIsReadBack(isPacked: Bool) {
        let disk = MemoryDisk(size: 64 << 10)
        let bench = make(disk, isPacked: isPacked)
        bench.put([UInt8](repeating: 0x5A, count: 1024), at: data)
        add(bench, type: 1, sector: 3, count: 1024)
        #expect(result(bench) == 0)
        #expect(bench.queues[0].takeUsed()?.written == 1)
        #expect(disk.bytes[1535...1537] == [0, 0x5A, 0x5A])
        bench.put([UInt8](repeating: 0, count: 1024), at: data)
        add(bench, type: 0, sector: 3, count: 512, isRead: true)
        #expect(result(bench) == 0)
        #expect(bench.queues[0].takeUsed()?.written == 513)
        #expect(bench.bytes(at: data, 513) == [UInt8](repeating: 0x5A, count: 512) + [0])
        #expect(bench.interrupts == [0, 0])
    }

    @Test func aRequestMayBeSpreadOverAnyBuffers() {
        let disk = MemoryDisk(size: 64 << 10)
        disk.bytes = (0..<64 << 10).map { UInt8(truncatingIfNeeded: $0 / 512) }
        let bench = make(disk)
        bench.put([0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], at: header)
        bench.queues[0].add([
            GuestBuffer(header, 3), GuestBuffer(header + 3, 13), GuestBuffer(data, 500, isWritable: true),
            GuestBuffer(data + 1000, 13, isWritable: true),
        ])
        bench.device.notify(queue: 0)
        #expect(bench.bytes(at: data + 499, 1) == [7])
        #expect(bench.bytes(at: data + 1000, 13) == [UInt8](repeating: 7, count: 12) + [0])
    }

    @Test func theConfigurationTellsOfTheDisk() {
        let bench = make(MemoryDisk(size: 1 << 20, blockSize: 4096), queues: 4)
        let fields = bench.device.configuration()
        #expect(fields.count == 60)
        #expect(Array(fields[0..<8]) == [0, 8, 0, 0, 0, 0, 0, 0])
        #expect(Array(fields[20..<25]) == [0, 0x10, 0, 0, 0])
        #expect(Array(fields[34..<36]) == [4, 0])
    }

    @Test func flushDiscardAndWriteZeroesReachTheDisk() {
        let disk = MemoryDisk(size: 64 << 10)
        disk.bytes = [UInt8](repeating: 0xFF, count: 64 << 10)
        let bench = make(disk)
        add(bench, type: 4)
        #expect(result(bench) == 0 && disk.flushes == 1)
        bench.put([2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], at: data)
        add(bench, type: 13, count: 16)
        #expect(result(bench) == 0)
        #expect(disk.bytes[1023...1024] == [0xFF, 0] && disk.bytes[1535...1536] == [0, 0xFF])
        bench.put(UInt8(5), at: data)
        add(bench, type: 11, count: 16)
        #expect(result(bench) == 0 && disk.bytes[2560] == 0)
    }

    @Test func theSerialNumberIsTold() {
        let bench = make(MemoryDisk(size: 64 << 10))
        add(bench, type: 8, count: 20, isRead: true)
        #expect(result(bench) == 0)
        #expect(bench.bytes(at: data, 20) == Array("DAVIT-0001".utf8) + [UInt8](repeating: 0, count: 10))
    }

    @Test func aDriverThatCannotFlushGetsDurableWrites() {
        let disk = MemoryDisk(size: 64 << 10)
        let bench = make(disk, without: VirtioFeatures(bit: 9))
        add(bench, type: 1, count: 512)
        #expect(result(bench) == 0 && disk.flushes == 1)
    }

    @Test func theHostsErrorIsTheGuestsIOError() {
        let disk = MemoryDisk(size: 64 << 10)
        let lines = Mutex<[String]>([])
        let bench = DeviceBench(
            VirtioBlock(disk: disk, name: "disk0", serial: "", queueCount: 1) { line in
                lines.withLock { $0.append(line) }
            })
        disk.failure = .noSpace
        add(bench, type: 1, count: 512)
        #expect(result(bench) == 1)
        #expect(lines.withLock { $0 } == ["disk0: the guest gets an I/O error: no space left on the host"])
        disk.failure = nil
        add(bench, type: 1, count: 512)
        #expect(result(bench) == 0)
    }

    // MARK: hostile drivers

    /// 4: a chain with only a header comes back; so do parts the wrong way round.
    @Test(arguments: [false, true]) func uselessChainsComeBack(isPacked: Bool) {
        let bench = make(MemoryDisk(size: 64 << 10), isPacked: isPacked)
        bench.queues[0].add([GuestBuffer(header, 16)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 0)
        bench.queues[0].add([GuestBuffer(status, 1, isWritable: true), GuestBuffer(header, 16)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 0)
        bench.queues[0].add([GuestBuffer(header, 8), GuestBuffer(status, 1, isWritable: true)])
        bench.device.notify(queue: 0)
        #expect(bench.queues[0].takeUsed()?.written == 1)
        #expect(result(bench) == 1)
        #expect(bench.failures == [])
    }

    /// 11: ranges that overflow, sizes that are no sectors, unknown requests.
    @Test func requestsThatMakeNoSenseFail() {
        let disk = MemoryDisk(size: 64 << 10)
        let bench = make(disk)
        for (sector, count) in [(127, 1024), (128, 512), (UInt64.max, 512), (1 << 55, 512), (0, 513)]
            as [(UInt64, UInt32)]
        {
            add(bench, type: 0, sector: sector, count: count, isRead: true)
            #expect(result(bench) == 1)
            add(bench, type: 1, sector: sector, count: count)
            #expect(result(bench) == 1)
        }
        add(bench, type: 999)
        #expect(result(bench) == 2)
        for type in [11, 13] as [UInt32] {
            for (sector, count) in [(0, 129), (127, 2), (UInt64.max, 1), (UInt64.max, UInt32.max), (1 << 55, 1)]
                as [(UInt64, UInt32)]
            {
                bench.put(sector, at: data)
                bench.put(count, at: data + 8)
                bench.put(UInt32(0), at: data + 12)
                add(bench, type: type, count: 16)
                #expect(result(bench) == 1)
            }
            bench.put(UInt64(0), at: data)
            bench.put(UInt32(1), at: data + 8)
            bench.put(UInt32(0xFF), at: data + 12)
            add(bench, type: type, count: 16)
            #expect(result(bench) == 2)
            add(bench, type: type, count: 8)
            #expect(result(bench) == 1)
        }
    }

    /// 11: the driver does not know, or does not care, that the disk is read-only.
    @Test func aReadOnlyDiskIsNotWritten() {
        let disk = MemoryDisk(size: 64 << 10, isReadOnly: true)
        let bench = make(disk, without: VirtioFeatures(bit: 5))
        bench.put([UInt8](repeating: 1, count: 512), at: data)
        for type in [1, 11, 13] as [UInt32] {
            add(bench, type: type, count: type == 1 ? 512 : 16)
            #expect(result(bench) == 1)
        }
        #expect(disk.bytes.allSatisfy { $0 == 0 })
    }

    /// 5: the header changes after the request was taken.
    @Test func aHeaderIsReadOnce() {
        let disk = MemoryDisk(size: 64 << 10)
        disk.bytes[0] = 0x77
        let bench = make(disk)
        disk.hold()
        add(bench, type: 0, count: 512, isRead: true)
        bench.put(UInt32(1), at: header)
        bench.put(UInt64.max, at: header + 8)
        disk.release()
        #expect(result(bench) == 0 && bench.bytes(at: data, 1) == [0x77])
    }

    /// 9: nothing is written into memory after the reset is done.
    @Test func aResetWaitsForWhatIsInFlight() {
        let disk = MemoryDisk(size: 64 << 10)
        let bench = make(disk)
        disk.hold()
        add(bench, type: 0, count: 512, isRead: true)
        #expect(disk.heldCount == 1)
        let isDone = Flag()
        bench.device.reset { isDone.set() }
        #expect(!isDone.isSet)
        // Nothing new is taken.
        add(bench, type: 0, count: 512, isRead: true)
        #expect(disk.heldCount == 1)
        disk.release()
        #expect(isDone.isSet)
        #expect(bench.queues[0].takeUsed() == nil && bench.interrupts == [])
    }

    /// 1: a disk that answers inside `submit` and a driver that always has more do not dig into the stack.
    @Test func manyRequestsAtOnceAreServedOneAfterAnother() {
        let disk = MemoryDisk(size: 64 << 10)
        let bench = make(disk)
        disk.hold()
        for _ in 0..<5 { add(bench, type: 0, count: 512, isRead: true) }
        disk.release()
        for _ in 0..<5000 {
            for _ in 0..<5 {
                bench.queues[0].add([
                    GuestBuffer(header, 16), GuestBuffer(data, 512, isWritable: true),
                    GuestBuffer(status, 1, isWritable: true),
                ])
            }
            bench.device.notify(queue: 0)
        }
        #expect(result(bench) == 0)
        #expect(bench.failures == [])
    }

    /// A broken ring stops the device; a reset brings it back.
    @Test func aBrokenRingStopsTheDeviceUntilReset() {
        let bench = make(MemoryDisk(size: 64 << 10))
        bench.queues[0].setAvailableIndex(100)
        bench.device.notify(queue: 0)
        #expect(bench.failures == [.availableIndex(100)])
        bench.device.notify(queue: 0)
        #expect(bench.failures.count == 1)
        bench.queues[0].setAvailableIndex(0)
        bench.device.reset {}
        bench.activate()
        add(bench, type: 0, count: 512, isRead: true)
        #expect(result(bench) == 0)
    }
}
