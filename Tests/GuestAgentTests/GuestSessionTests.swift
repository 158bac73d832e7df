import DavitTesting
import Glibc
import HostLinux
import Testing

@testable import GuestAgent

/// The agent itself, run by this host's Perl as the guest's systemd runs it, with a Unix socket in the place of a vsock.
@Suite(.timeLimit(.minutes(1))) final class GuestSessionTests {
    private let agent: RunningAgent

    init() throws { agent = try RunningAgent() }

    @Test func statusAndStreamsAreTheProgramsOwn() throws {
        let run = try agent.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        #expect(run.end == .exited(7))
        #expect(run.output == "out\n")
        #expect(run.errors == "err\n")
    }

    @Test func wordsAreNotSplit() throws {
        let run = try agent.run(["printf", "[%s]", "a b", "", "*", "é\n"])
        #expect(run.output == "[a b][][*][é\n]")
    }

    @Test func environmentAndDirectory() throws {
        var command = GuestCommand(["sh", "-c", "pwd; echo $COLOUR $HOME"])
        command.environment = ["COLOUR=light blue=1"]
        command.directory = "/usr"
        command.user = agent.user
        #expect(try agent.run(command).output == "/usr\nlight blue=1 \(agent.home)\n")
    }

    @Test func inputGoesThroughWhateverItsSize() throws {
        let text = (0..<300_000).map { "\($0)\n" }.joined()
        let run = try agent.run(["cat"], input: text)
        #expect(run.end == .exited(0))
        #expect(run.output == text)
    }

    @Test func aProgramThatDoesNotReadIsNotWaitedFor() throws {
        let run = try agent.run(["true"], input: String(repeating: "x", count: 4 << 20))
        #expect(run.end == .exited(0))
    }

    @Test func withoutInputItsEndIsThere() throws {
        #expect(try agent.run(["cat"]).end == .exited(0))
    }

    @Test func aProgramThatIsNotThere() throws {
        #expect(try agent.run(["/nonexistent"]).end == .failed(127, "'/nonexistent': No such file or directory"))
        #expect(try agent.run(["/etc"]).end == .failed(126, "'/etc': Permission denied"))
        var command = GuestCommand(["true"])
        command.directory = "/nonexistent"
        #expect(
            try agent.run(command).end == .failed(126, "directory '/nonexistent': No such file or directory"))
    }

    @Test func aSignalEndsIt() throws {
        #expect(try agent.run(["sh", "-c", "kill -KILL $$"]).end == .exited(128 + SIGKILL))
        let signals = try EventFD()
        for _ in 0..<SIGTERM { signals.signal() }
        let run = try agent.run(GuestCommand(["sleep", "50"]), signals: signals)
        #expect(run.end == .exited(128 + SIGTERM))
    }

    @Test func aPipelineEndsWithItsReader() throws {
        let run = try agent.run(["sh", "-c", "yes | head -n 1; kill -PIPE $$; echo alive"])
        #expect(run.end == .exited(128 + SIGPIPE))
        #expect(run.output == "y\n")
        #expect(run.errors == "")
    }

    @Test func whatItLeavesRunningIsNotWaitedFor() throws {
        let run = try agent.run(["sh", "-c", "sleep 50 & echo $!"])
        #expect(run.end == .exited(0))
        kill(try #require(pid_t(run.output.dropLast())), SIGKILL)
    }

    @Test func aTerminalWithASize() throws {
        var command = GuestCommand(["sh", "-c", "tty >/dev/null && stty size; echo $TERM"])
        command.terminal = "vt100"
        command.terminalSize = TerminalSize(rows: 33, columns: 111)
        let run = try agent.run(command)
        #expect(run.end == .exited(0))
        #expect(run.output == "33 111\r\nvt100\r\n")
        #expect(run.errors == "")
    }

    @Test func whenTheHostIsGoneTheProgramIsHungUp() throws {
        var command = GuestCommand(["sh", "-c", "echo $$; sleep 50"])
        command.terminal = "vt100"
        let connection = try agent.connect()
        var request = GuestFrame.bytes(GuestFrame.request, try #require(command.request))
        #expect(write(connection, &request, request.count) == request.count)
        var frames = GuestFrameReader()
        var process: pid_t?
        while process == nil {
            var bytes = [UInt8](repeating: 0, count: 100)
            let count = read(connection, &bytes, bytes.count)
            try #require(count > 0)
            frames.append(bytes[..<count])
            if let frame = try frames.next() {
                process = pid_t(String(decoding: frame.contents, as: UTF8.self).filter(\.isNumber))
            }
        }
        close(connection)
        let shell = try #require(process)
        for _ in 0..<200 where kill(shell, 0) == 0 { usleep(20_000) }
        #expect(kill(shell, 0) != 0)
    }

    @Test func anotherVersionIsRefused() throws {
        let connection = try agent.connect()
        defer { close(connection) }
        var request = GuestFrame.bytes(GuestFrame.request, Array("version=999\0\0true\0".utf8))
        #expect(write(connection, &request, request.count) == request.count)
        var bytes = [UInt8](repeating: 0, count: 1000)
        let count = read(connection, &bytes, bytes.count)
        var frames = GuestFrameReader()
        frames.append(bytes[..<max(count, 0)])
        let frame = try #require(try frames.next())
        #expect(frame.kind == GuestFrame.failure)
        #expect(GuestFrame.number(frame.contents) == 125)
    }
}

/// Guests that are not what they say.
@Suite struct HostileAgentTests {
    /// How a session ends with an agent that says `bytes` and is gone.
    private func end(after bytes: [UInt8]) throws -> GuestSession.End {
        var ends: [Int32] = [-1, -1]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        defer { close(ends[0]) }
        #expect(write(ends[1], bytes, bytes.count) == bytes.count)
        shutdown(ends[1], Int32(SHUT_WR))
        defer { close(ends[1]) }
        let nowhere = open("/dev/null", O_RDWR)
        defer { close(nowhere) }
        var session = GuestSession(
            GuestCommand(["true"]), over: ends[0], input: nil, output: nowhere, errorOutput: nowhere)
        return session.run()
    }

    @Test func nothingAndHalfAFrame() throws {
        #expect(try end(after: []) == .lost)
        #expect(try end(after: [GuestFrame.output, 0, 0, 0, 9, 1]) == .lost)
    }

    @Test func aFrameWithoutEnd() throws {
        #expect(try end(after: [GuestFrame.output, 0xFF, 0xFF, 0xFF, 0xFF, 1]) == .lost)
    }

    @Test func anUnknownFrame() throws {
        #expect(try end(after: GuestFrame.bytes(UInt8(ascii: "?"), [])) == .lost)
    }

    @Test func emptyFrames() throws {
        #expect(
            try end(after: GuestFrame.bytes(GuestFrame.credit, []) + GuestFrame.bytes(GuestFrame.exit, []))
                == .exited(0))
        #expect(try end(after: GuestFrame.bytes(GuestFrame.failure, [])) == .failed(0, ""))
    }

    @Test func creditWithoutEnd() throws {
        let credit = GuestFrame.bytes(GuestFrame.credit, [0xFF, 0xFF, 0xFF, 0xFF])
        let bytes =
            Array(repeatElement(credit, count: 1000).joined()) + GuestFrame.bytes(GuestFrame.exit, [0, 0, 0, 3])
        #expect(try end(after: bytes) == .exited(3))
    }

    @Test func wordsThatWouldSteerTheTerminal() throws {
        let bytes = GuestFrame.bytes(GuestFrame.failure, [0, 0, 0, 126] + Array("a\u{1B}[2Jb".utf8))
        #expect(try end(after: bytes) == .failed(126, "a?[2Jb"))
    }
}
