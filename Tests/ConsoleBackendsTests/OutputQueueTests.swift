import Glibc
import HostLinux
import Synchronization
import Testing

@testable import ConsoleBackends

@Suite(.timeLimit(.minutes(1))) struct OutputQueueTests {
    /// As `davit` does: a queue's thread may still write when its reader is gone.
    init() { signal(SIGPIPE, SIG_IGN) }

    private func makePipe() -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        pipe(&ends)
        return (ends[0], ends[1])
    }

    @discardableResult
    private func append(_ bytes: [UInt8], to queue: OutputQueue) -> Bool {
        bytes.withUnsafeBytes { queue.append($0) }
    }

    @Test func slowReaderLosesNothing() throws {
        let (reading, writing) = makePipe()
        let queue = try OutputQueue(descriptor: writing, capacity: 1024) { _ in }
        let sent = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
        let writer = try HostThread(name: "test-writer") {
            for start in stride(from: 0, to: sent.count, by: 100) {
                // Refused bytes are offered again, as a serial port does.
                while !append(Array(sent[start..<start + 100]), to: queue) {}
            }
            queue.flush()
            queue.close()
            close(writing)
        }
        var received: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 5000)
        while true {
            let count = read(reading, &buffer, buffer.count)
            if count <= 0 { break }
            received += buffer[..<count]
            usleep(200)
        }
        writer.join()
        close(reading)
        #expect(received.count == sent.count)
        #expect(received.elementsEqual(sent))
    }

    @Test func fullQueueRefusesAndTellsOfRoom() throws {
        let (reading, writing) = makePipe()
        let room = try EventFD()
        let queue = try OutputQueue(descriptor: writing, capacity: 1024, onRoom: { room.signal() }, onFailure: { _ in })
        let block = [UInt8](repeating: 7, count: 1024)
        var sent = 0
        while append(block, to: queue) { sent += block.count }
        #expect(sent >= 2 * block.count)
        var buffer = [UInt8](repeating: 0, count: sent)
        var received = 0
        while received < sent { received += read(reading, &buffer, buffer.count) }
        #expect(received == sent)
        #expect(room.wait(milliseconds: 10_000))
        #expect(append(block, to: queue))
        queue.flush()
        queue.close()
        close(reading)
        close(writing)
    }

    @Test func hurriedQueueMakesNobodyWait() throws {
        let (reading, writing) = makePipe()
        defer { close(reading) }
        let queue = try OutputQueue(descriptor: writing, capacity: 1024) { _ in }
        queue.hurry()
        // Far more than pipe and queue hold, and nobody reads.
        for _ in 0..<1000 { append([UInt8](repeating: 0, count: 1024), to: queue) }
        queue.flush(patience: 10)
        queue.close()
    }

    @Test func readerThatIsGoneIsToldOnce() throws {
        let (reading, writing) = makePipe()
        close(reading)
        let failed = try EventFD()
        let failures = Mutex<[SystemError]>([])
        let queue = try OutputQueue(descriptor: writing, capacity: 16) { error in
            failures.withLock { $0.append(error) }
            failed.signal()
        }
        append([1], to: queue)
        #expect(failed.wait(milliseconds: 10_000))
        for _ in 0..<100 { append([1, 2, 3], to: queue) }
        queue.flush()
        queue.close()
        #expect(failures.withLock { $0 } == [SystemError("write", code: EPIPE)])
        close(writing)
    }
}
