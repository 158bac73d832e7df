import Glibc
import HostLinux
import Synchronization
import Testing

@testable import ConsoleBackends

@Suite(.timeLimit(.minutes(1))) struct StreamChannelTests {
    /// A receiver with room for 16 bytes at a time, as a UART's FIFO has.
    final class Receiver: Sendable {
        let received = Mutex<[UInt8]>([])
        let arrived: EventFD

        init() throws { arrived = try EventFD() }

        func take(_ bytes: UnsafeRawBufferPointer) -> Int {
            let taken = bytes.prefix(16)
            received.withLock { $0 += taken }
            arrived.signal()
            return taken.count
        }
    }

    @Test func inputWaitsForTheGuestAndNothingIsLost() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        var ends: [Int32] = [-1, -1]
        pipe(&ends)
        let (reading, writing) = (ends[0], ends[1])
        let null = open("/dev/null", O_WRONLY)
        let channel = try StreamChannel(loop: loop, input: reading, output: null) { _ in }
        let sent = (0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 3) }
        let writer = try HostThread(name: "test-writer") {
            _ = write(writing, sent, sent.count)
            close(writing)
        }
        let receiver = try Receiver()
        channel.onReceive { receiver.take($0) }
        while receiver.received.withLock({ $0.count }) < sent.count, receiver.arrived.wait(milliseconds: 10_000) {
            _ = receiver.arrived.drain()
            channel.resumeReading()
        }
        writer.join()
        #expect(receiver.received.withLock { $0 } == sent)
        channel.close()
        close(reading)
        close(null)
    }

    @Test func commandsAreHeardThoughTheGuestTakesNothing() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        var ends: [Int32] = [-1, -1]
        pipe(&ends)
        let null = open("/dev/null", O_WRONLY)
        let ended = try EventFD()
        let channel = try StreamChannel(
            loop: loop, input: ends[0], output: null, onCommand: { if $0 == .end { ended.signal() } },
            onOutputFailure: { _ in })
        let keys = [UInt8](repeating: UInt8(ascii: "z"), count: 100_000) + [1, UInt8(ascii: "x")]
        _ = write(ends[1], keys, 60_000)
        _ = keys.withUnsafeBytes { write(ends[1], $0.baseAddress! + 60_000, keys.count - 60_000) }
        #expect(ended.wait(milliseconds: 10_000))
        channel.close()
        for descriptor in ends + [null] { close(descriptor) }
    }
}
