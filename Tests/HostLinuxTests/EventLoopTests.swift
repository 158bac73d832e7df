import Glibc
import HostLinux
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct EventLoopTests {
    /// A pipe whose ends are closed with it.
    final class Pipe: Sendable {
        let reading: Int32
        let writing: Int32

        init() {
            var ends: [Int32] = [-1, -1]
            pipe(&ends)
            (reading, writing) = (ends[0], ends[1])
        }

        deinit {
            close(reading)
            close(writing)
        }

        func put(_ text: String) { _ = write(writing, text, text.utf8.count) }
    }

    @Test func handlerIsCalledWhenBytesCome() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        let pipe = Pipe()
        let arrived = try EventFD()
        try loop.watch(pipe.reading) {
            var byte: UInt8 = 0
            if read(pipe.reading, &byte, 1) == 1, byte == UInt8(ascii: "!") { arrived.signal() }
        }
        pipe.put("!")
        #expect(arrived.wait(milliseconds: 10_000))
    }

    @Test func disabledDescriptorWaitsUntilItIsEnabled() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        let pipe = Pipe()
        let arrived = try EventFD()
        try loop.watch(pipe.reading) {
            var byte: UInt8 = 0
            _ = read(pipe.reading, &byte, 1)
            arrived.signal()
        }
        loop.setEnabled(false, for: pipe.reading)
        pipe.put("!")
        #expect(!arrived.wait(milliseconds: 50))
        loop.setEnabled(true, for: pipe.reading)
        #expect(arrived.wait(milliseconds: 10_000))
    }

    @Test func regularFilesAreAlwaysReady() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        let file = open("/dev/null", O_RDONLY)
        defer { close(file) }
        let ended = try EventFD()
        try loop.watch(file) { [unowned loop] in
            var byte: UInt8 = 0
            if read(file, &byte, 1) == 0 {
                loop.forget(file)
                ended.signal()
            }
        }
        #expect(ended.wait(milliseconds: 10_000))
    }

    @Test func callsRunOnTheLoopsThread() throws {
        let loop = try EventLoop(name: "test-loop")
        defer { loop.stop() }
        let done = try EventFD()
        let caller = pthread_self()
        let elsewhere = Mutex(false)
        loop.perform {
            elsewhere.withLock { $0 = pthread_equal(pthread_self(), caller) == 0 }
            done.signal()
        }
        #expect(done.wait(milliseconds: 10_000))
        #expect(elsewhere.withLock { $0 })
    }

    @Test func eventCountsUntilItIsDrained() throws {
        let event = try EventFD()
        #expect(event.drain() == 0)
        event.signal()
        event.signal()
        #expect(event.drain() == 2)
        #expect(!event.wait(milliseconds: 0))
    }
}
