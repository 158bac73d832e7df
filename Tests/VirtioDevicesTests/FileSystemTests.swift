import DavitTesting
import FileShares
import GuestMemory
import Glibc
import MachineModel
import Testing
import VirtioDevices
import VirtioQueue

/// The device between a ring and a file server.
@Suite struct FileSystemTests {
    private let request: UInt64 = 0x10_0000
    private let reply: UInt64 = 0x11_0000

    private final class Share {
        let directory: TemporaryDirectory
        let server: FUSEServer
        let bench: DeviceBench

        init(isPacked: Bool = false) throws {
            directory = try TemporaryDirectory()
            server = try FUSEServer(name: "share0", path: directory.path, isReadOnly: false)
            bench = DeviceBench(VirtioFS(name: "share0", tag: "work", server: server), size: 32, isPacked: isPacked)
        }

        deinit {
            bench.device.reset {}
            server.close()
        }

        /// What the used ring says of the next chain; nil if none comes.
        func takeUsed(queue: Int = 1) -> UInt32? {
            for _ in 0..<5000 {
                if let used = bench.queues[queue].takeUsed() { return used.written }
                usleep(1000)
            }
            return nil
        }
    }

    /// FUSE_GETATTR (3) of the tree's top: a header of 40 bytes, 16 of arguments.
    private func putGetAttributes(_ bench: DeviceBench, length: UInt32 = 56) {
        bench.put([UInt8](repeating: 0, count: 256), at: request)
        bench.put(length, at: request)
        bench.put(UInt32(3), at: request + 4)
        bench.put(UInt64(42), at: request + 8)
        bench.put(UInt64(1), at: request + 16)
    }

    @Test func theConfigurationTellsTheTag() throws {
        let fields = try Share().bench.device.configuration()
        #expect(fields.count == 40)
        #expect(Array(fields[0..<5]) == Array("work".utf8) + [0] && Array(fields[36...]) == [1, 0, 0, 0])
    }

    @Test(arguments: [false, true]) func aRequestMayBeSpreadOverAnyBuffers(isPacked: Bool) throws {
        let share = try Share(isPacked: isPacked)
        putGetAttributes(share.bench)
        share.bench.queues[1].add([
            GuestBuffer(request, 3), GuestBuffer(request + 3, 0), GuestBuffer(request + 3, 38),
            GuestBuffer(request + 41, 15), GuestBuffer(reply, 1, isWritable: true),
            GuestBuffer(reply + 100, 20, isWritable: true), GuestBuffer(reply + 200, 500, isWritable: true),
        ])
        share.bench.device.notify(queue: 1)
        #expect(share.takeUsed() == 120)
        #expect(share.bench.bytes(at: reply, 1) == [120])
        // The rest of the header: length, no error, the request's number; then for how long that is good.
        #expect(share.bench.bytes(at: reply + 100, 16) == [0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 0, 1])
    }

    @Test(arguments: [false, true]) func chainsOfOddShapesComeBack(isPacked: Bool) throws {
        let share = try Share(isPacked: isPacked)
        putGetAttributes(share.bench)
        let shapes: [([GuestBuffer], UInt32)] = [
            // Nothing to read, nothing to write, parts the wrong way round, a header cut short, no room for an answer's.
            ([GuestBuffer(reply, 100, isWritable: true)], 16),
            ([GuestBuffer(request, 56)], 0),
            ([GuestBuffer(reply, 100, isWritable: true), GuestBuffer(request, 56)], 0),
            ([GuestBuffer(request, 39), GuestBuffer(reply, 100, isWritable: true)], 16),
            ([GuestBuffer(request, 56), GuestBuffer(reply, 15, isWritable: true)], 0),
            // Less than it says that it is, and room for the header alone.
            ([GuestBuffer(request, 55), GuestBuffer(reply, 200, isWritable: true)], 16),
            ([GuestBuffer(request, 56), GuestBuffer(reply, 16, isWritable: true)], 16),
            ([GuestBuffer(request, 56), GuestBuffer(reply, 120, isWritable: true)], 120),
        ]
        for queue in [0, 1] {
            for (shape, written) in shapes {
                share.bench.queues[queue].add(shape)
                share.bench.device.notify(queue: queue)
                #expect(share.takeUsed(queue: queue) == written)
            }
        }
        #expect(share.bench.failures == [])
    }

    @Test func aRequestOverItsOwnAnswerIsReadFirst() throws {
        let share = try Share()
        putGetAttributes(share.bench)
        share.bench.queues[1].add([GuestBuffer(request, 56), GuestBuffer(request, 120, isWritable: true)])
        share.bench.device.notify(queue: 1)
        #expect(share.takeUsed() == 120)
    }

    /// Nothing of one driver's is left for the next.
    @Test func aResetForgetsTheDriver() throws {
        let share = try Share()
        putGetAttributes(share.bench)
        for _ in 0..<20 {
            share.bench.queues[1].add([GuestBuffer(request, 56), GuestBuffer(reply, 120, isWritable: true)])
        }
        share.bench.device.notify(queue: 1)
        let isDone = Flag()
        share.bench.device.reset { isDone.set() }
        for _ in 0..<5000 where !isDone.isSet { usleep(1000) }
        #expect(isDone.isSet)
        // From here on the memory is the guest's alone.
        share.bench.put([UInt8](repeating: 0, count: 120), at: reply)
        usleep(20_000)
        #expect(share.bench.bytes(at: reply, 120).allSatisfy { $0 == 0 })
    }

    @Test func aBrokenRingStopsTheDevice() throws {
        let share = try Share()
        share.bench.queues[1].setAvailableIndex(1000)
        share.bench.device.notify(queue: 1)
        #expect(share.bench.failures == [.availableIndex(1000)])
    }
}
