import DavitTesting
import Glibc
import HostLinux
import Synchronization
import Testing

@testable import ConsoleBackends

@Suite(.timeLimit(.minutes(1))) struct SocketChannelTests {
    private let directory: TemporaryDirectory
    private let loop: EventLoop
    private var path: String { directory.path + "/port" }

    init() throws {
        directory = try TemporaryDirectory()
        loop = try EventLoop(name: "test")
    }

    /// What the guest's side has heard.
    private final class Heard: Sendable {
        let bytes = Mutex<[UInt8]>([])
        let connections = Mutex<[Bool]>([])
        let roomsMade = Atomic<Int>(0)

        func listen(to channel: SocketChannel) {
            channel.onReceive { [self] bytes in
                self.bytes.withLock { $0 += bytes }
                return bytes.count
            }
            channel.onConnection { [self] isConnected in connections.withLock { $0.append(isConnected) } }
            channel.onWritable { [self] in roomsMade.add(1, ordering: .relaxed) }
        }
    }

    /// A program's end, whose reads wait.
    private func connect() throws -> Int32 {
        let descriptor = try UnixSocket.connect(path)
        _ = fcntl(descriptor, F_SETFL, 0)
        return descriptor
    }

    private func wait(_ condition: () -> Bool) -> Bool {
        for _ in 0..<3000 {
            if condition() { return true }
            usleep(1000)
        }
        return false
    }

    private func write(_ text: String, to channel: SocketChannel) -> Int {
        Array(text.utf8).withUnsafeBytes { channel.write($0) }
    }

    private func read(_ descriptor: Int32, _ count: Int) -> String {
        var buffer = [UInt8](repeating: 0, count: count)
        let got = recv(descriptor, &buffer, count, Int32(MSG_WAITALL))
        return String(decoding: buffer.prefix(max(got, 0)), as: UTF8.self)
    }

    @Test func oneProgramAtATime() throws {
        let channel = try SocketChannel(loop: loop, path: path)
        defer { loop.stop() }
        defer { channel.close() }
        let heard = Heard()
        heard.listen(to: channel)
        #expect(write("to nobody", to: channel) == 9)
        let first = try connect()
        #expect(wait { heard.connections.withLock { $0 } == [false, true] })
        #expect(write("to the first", to: channel) == 12)
        #expect(read(first, 12) == "to the first")
        _ = send(first, "typed", 5, 0)
        #expect(wait { heard.bytes.withLock { $0 } == Array("typed".utf8) })
        // Another one is cut off, and the next after the first is served.
        let second = try connect()
        #expect(read(second, 1) == "")
        close(second)
        close(first)
        #expect(wait { heard.connections.withLock { $0 } == [false, true, false] })
        let third = try connect()
        #expect(wait { heard.connections.withLock { $0.count } == 4 })
        #expect(write("again", to: channel) == 5)
        #expect(read(third, 5) == "again")
        close(third)
    }

    @Test func aProgramThatDoesNotReadMakesTheGuestWait() throws {
        let channel = try SocketChannel(loop: loop, path: path)
        defer { loop.stop() }
        defer { channel.close() }
        let heard = Heard()
        heard.listen(to: channel)
        let client = try connect()
        #expect(wait { heard.connections.withLock { $0.last } == true })
        let piece = String(repeating: "x", count: 4096)
        var sent = 0
        while sent < 64 << 20, write(piece, to: channel) == piece.count { sent += piece.count }
        #expect(sent < 64 << 20 && heard.roomsMade.load(ordering: .relaxed) == 0)
        #expect(read(client, sent).count == sent)
        #expect(wait { heard.roomsMade.load(ordering: .relaxed) == 1 })
        close(client)
    }

    /// A process that was killed has left its socket; one that lives has it still.
    @Test func theSocketOfALivingProcessStays() throws {
        close(try UnixSocket.listen(path))
        let channel = try SocketChannel(loop: loop, path: path)
        let error = #expect(throws: SystemError.self) { try SocketChannel(loop: loop, path: path) }
        #expect(error?.code == EADDRINUSE)
        close(try connect())
        channel.close()
        loop.stop()
        #expect(access(path, F_OK) != 0)
    }

    @Test func whatIsNoSocketStays() throws {
        close(open(path, O_CREAT | O_WRONLY, 0o644))
        #expect(throws: SystemError.self) { try SocketChannel(loop: loop, path: path) }
        #expect(access(path, F_OK) == 0)
        loop.stop()
    }
}
