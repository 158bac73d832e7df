import Glibc
import MachineModel
import Synchronization
import Testing

@testable import NetBackends

/// Frames on a stream socket, whose far end is the test.
@Suite struct StreamPortTests {
    private final class Inbox: Sendable {
        private let frames = Mutex<[[UInt8]]>([])
        private let isOpen = Atomic<Bool>(true)
        private let ends = Atomic<Int>(0)

        var count: Int { frames.withLock { $0.count } }
        var all: [[UInt8]] { frames.withLock { $0 } }
        var endCount: Int { ends.load(ordering: .acquiring) }
        func setOpen(_ open: Bool) { isOpen.store(open, ordering: .releasing) }
        func end() { ends.add(1, ordering: .acquiringAndReleasing) }

        func take(_ frame: UnsafeRawBufferPointer) -> Bool {
            guard isOpen.load(ordering: .acquiring) else { return false }
            frames.withLock { $0.append([UInt8](frame)) }
            return true
        }
    }

    private let inbox = Inbox()
    private let far: Int32
    private let port: StreamPort

    init() throws {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        far = ends[1]
        port = try StreamPort(
            descriptor: ends[0], name: "test", mtu: 1500, maximumFrame: 65535, onEnd: { [inbox] in inbox.end() })
        port.onReceive { [inbox] _, frame in inbox.take(frame) }
    }

    private func wait(_ seconds: Int = 10, _ condition: () -> Bool) -> Bool {
        for _ in 0..<seconds * 1000 {
            if condition() { return true }
            usleep(1000)
        }
        return condition()
    }

    private func write(_ bytes: [UInt8]) { #expect(Glibc.write(far, bytes, bytes.count) == bytes.count) }

    private func framed(_ bytes: [UInt8]) -> [UInt8] {
        [
            UInt8(bytes.count >> 24), UInt8(bytes.count >> 16 & 0xFF), UInt8(bytes.count >> 8 & 0xFF),
            UInt8(bytes.count & 0xFF),
        ]
            + bytes
    }

    private func send(_ bytes: [UInt8], _ header: PacketHeader = PacketHeader()) -> Bool {
        var bytes = bytes
        return bytes.withUnsafeMutableBytes { port.send(header, [iovec(iov_base: $0.baseAddress, iov_len: $0.count)]) }
    }

    private func read(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let got = bytes.withUnsafeMutableBytes { Glibc.read(far, $0.baseAddress! + done, count - done) }
            guard got > 0 else { break }
            done += got
        }
        return Array(bytes[..<done])
    }

    @Test func framesComeInHoweverTheStreamIsCut() {
        let bytes = framed(Array(0..<60)) + framed(Array(100..<200))
        for byte in bytes { write([byte]) }
        write(bytes)
        #expect(wait { inbox.count == 4 })
        #expect(inbox.all == [Array(0..<60), Array(100..<200), Array(0..<60), Array(100..<200)])
        port.close()
    }

    @Test func aRefusedFrameIsOfferedAgain() {
        inbox.setOpen(false)
        write(framed([1]) + framed([2]))
        usleep(50_000)
        #expect(inbox.count == 0)
        inbox.setOpen(true)
        port.resumeReceiving()
        #expect(wait { inbox.all == [[1], [2]] })
        port.close()
    }

    /// A far end that drops what the socket does not take loses nothing while the guest is slow, up to some megabytes.
    @Test func theSocketIsReadWhileTheReceiverIsSlow() throws {
        inbox.setOpen(false)
        let frames = (0..<100).map { [UInt8](repeating: UInt8($0), count: 60_000) }
        _ = fcntl(far, F_SETFL, fcntl(far, F_GETFL) | O_NONBLOCK)
        for frame in frames {
            let bytes = framed(frame)
            var done = 0
            try #require(
                wait {
                    let count = bytes.withUnsafeBytes { Glibc.write(far, $0.baseAddress! + done, bytes.count - done) }
                    done += max(count, 0)
                    return done == bytes.count
                })
        }
        #expect(inbox.count == 0)
        inbox.setOpen(true)
        port.resumeReceiving()
        #expect(wait { inbox.count == frames.count })
        #expect(inbox.all == frames)
        port.close()
    }

    @Test func framesGoOutBehindTheirLength() {
        #expect(send(Array(0..<60)))
        #expect(read(64) == framed(Array(0..<60)))
        port.close()
    }

    @Test func aFullSocketSaysWhenThereIsRoom() {
        let frame = [UInt8](repeating: 7, count: 60_000)
        var sent = 0
        while sent < 1000, send(frame) { sent += 1 }
        #expect(sent > 0 && sent < 1000)
        let expected = framed(frame)
        for _ in 0..<sent { #expect(read(expected.count) == expected) }
        #expect(wait { send([1]) })
        port.close()
    }

    /// RFC 1071's example, and a frame in which the checksum stands where the header says.
    @Test func checksumsAreCompleted() {
        let words: [UInt8] = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]
        #expect(words.withUnsafeBytes { InternetChecksum.of($0) }.bigEndian == 0x220D)
        var header = PacketHeader()
        header.flags = PacketHeader.needsChecksum
        header.checksumStart = 2
        header.checksumOffset = 8
        #expect(send([9, 9] + words + [0, 0], header))
        #expect(read(16) == framed([9, 9] + words + [0x22, 0x0D]))
        header.checksumOffset = 9
        #expect(send([9, 9] + words + [0, 0], header))
        #expect(send([5]))
        #expect(read(5) == framed([5]))
        port.close()
    }

    @Test func aLostFarEndIsALostLink() {
        Glibc.close(far)
        #expect(wait { !port.isUp })
        #expect(send([1]))
        #expect(inbox.endCount == 1)
        port.close()
    }

    /// A length that no frame has: the stream cannot be believed any more.
    @Test func aStreamOutOfStepIsGivenUp() {
        write([0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3])
        #expect(wait { !port.isUp })
        port.close()
    }
}
