import DavitTesting
import FileShares
import GuestMemory
import Glibc
import Testing
import VirtioQueue

@testable import VirtioDevices

/// Every device against drivers that send anything, more than their rings hold too: nothing traps, and every reset ends.
@Suite(.serialized) struct RandomRequestTests {
    /// From 0 on. The fuzzer's `requests` goes further.
    private static let seeds: UInt64 = 40

    enum Kind: String, CaseIterable {
        case block, readOnlyBlock, net, entropy, balloon, console, vsock, fileSystem
    }

    private func make(_ kind: Kind, _ memory: GuestMemory) throws -> (any VirtioDevice, close: () -> Void) {
        switch kind {
        case .block: (VirtioBlock(disk: MemoryDisk(size: 64 << 10), name: "d", serial: "s", queueCount: 2) { _ in }, {})
        case .readOnlyBlock:
            (
                VirtioBlock(
                    disk: MemoryDisk(size: 64 << 10, isReadOnly: true), name: "d", serial: "s", queueCount: 1
                ) { _ in }, {}
            )
        case .net: (VirtioNet(port: MemoryPort(), name: "n", mac: [2, 0, 0, 0, 0, 1], pairCount: 2), {})
        case .entropy: (VirtioEntropy(name: "e"), {})
        case .balloon: (VirtioBalloon(name: "b", memory: memory), {})
        case .console:
            (
                VirtioConsole(
                    name: "c",
                    ports: [
                        .init(channel: MemoryByteChannel()), .init(name: "p", channel: MemoryByteChannel()),
                    ]), {}
            )
        case .vsock: try makeVsock()
        case .fileSystem: try makeFileSystem()
        }
    }

    private func makeFileSystem() throws -> (any VirtioDevice, close: () -> Void) {
        let directory = try TemporaryDirectory()
        let server = try FUSEServer(name: "f", path: directory.path, isReadOnly: false)
        return (VirtioFS(name: "f", tag: "t", server: server), { withExtendedLifetime(directory) { server.close() } })
    }

    private func makeVsock() throws -> (any VirtioDevice, close: () -> Void) {
        let device = try VirtioVsock(name: "v", cid: 3, path: "/tmp/davit-fuzz-\(getpid())")
        return (device, device.close)
    }

    @Test(arguments: Kind.allCases) func anythingIsSurvived(kind: Kind) throws {
        for seed in 0..<Self.seeds { try run(kind, seed) }
    }

    private func run(_ kind: Kind, _ seed: UInt64) throws {
        var random = SplitMix(state: seed)
        let memory = try GuestMemory(size: 8 << 20)
        let (device, close) = try make(kind, memory)
        defer { close() }
        let bench = DeviceBench(device, memory: memory, size: 32, isPacked: seed % 2 == 1)
        let data: UInt64 = 0x10_0000
        for _ in 0..<100 {
            // Small numbers make requests that are nearly right.
            let bytes = (0..<96).map { _ in
                UInt8(truncatingIfNeeded: random.next() % (random.next() % 3 == 0 ? 256 : 8))
            }
            bench.put(bytes, at: data)
            let index = Int(random.next() % UInt64(device.queueSizes.count))
            var buffers: [GuestBuffer] = []
            for _ in 0...random.next() % 4 {
                buffers.append(
                    GuestBuffer(
                        data + random.next() % 4096, UInt32(random.next() % 600),
                        isWritable: random.next() % 2 == 0))
            }
            if random.next() % 4 != 0 {
                // In order, as a driver of sense would have them.
                buffers = buffers.filter { !$0.isWritable } + buffers.filter(\.isWritable)
            }
            bench.queues[index].add(buffers)
            device.notify(queue: index)
            device.writeConfiguration(
                offset: Int(random.next() % 70),
                (0..<Int(random.next() % 9)).map { _ in UInt8(truncatingIfNeeded: random.next()) })
            _ = device.configuration()
            while bench.queues[index].takeUsed() != nil {}
        }
        let isDone = Flag()
        device.reset { isDone.set() }
        for _ in 0..<5000 where !isDone.isSet { usleep(1000) }
        #expect(isDone.isSet, "\(kind.rawValue), seed \(seed): the reset does not end")
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
