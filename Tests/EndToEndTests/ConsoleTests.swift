import Glibc
import HostLinux
import Testing

/// The virtio console as Debian's kernels use it.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
struct ConsoleTests {
    private let patience = 120

    /// The terminal is hvc0, with its size, which changes; COM1 says nothing.
    @Test(arguments: [LinuxGuest.kernel61, LinuxGuest.kernel612]) func hvc0IsTheTerminal(kernel: String) {
        let terminal = PseudoTerminal()
        terminal.setSize(rows: 33, columns: 101)
        let davit = LinuxGuest.start(
            kernel: kernel, commandLine: "console=hvc0 quiet", streams: .terminal(terminal), "--console", "stdio")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("echo S$(stty size </dev/hvc0)S\n")
        #expect(davit.waitFor("S33 101S", seconds: 30))
        terminal.setSize(rows: 50, columns: 120)
        // The kernel hears of it by a message.
        davit.type(
            "while [ \"$(stty size </dev/hvc0)\" = '33 101' ]; do sleep 0.1; done; echo S$(stty size </dev/hvc0)S\n")
        #expect(davit.waitFor("S50 120S", seconds: 30))
        davit.type("\u{1}x")
        #expect(davit.waitForExit(seconds: 30) == 0)
        #expect(terminal.isCooked)
    }

    /// A program in the guest and one on the host, by a port with a name; a second console goes to a file. So again after a reboot.
    @Test(arguments: TestEngine.all) func portsWithNames(engine: String) throws {
        let path = "/tmp/davit-console-\(getpid())"
        let davit = LinuxGuest.start(
            engine: engine, "--console", "file,path=\(path).log", "--console",
            "socket,path=\(path),name=org.example.agent")
        defer { unlink("\(path).log") }
        for round in 1...2 {
            // The shell's first words: there may be another prompt before the reboot.
            #expect(davit.waitFor("built-in shell", seconds: patience))
            #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
            let program = try UnixSocket.connect(path)
            defer { close(program) }
            _ = fcntl(program, F_SETFL, 0)
            davit.type("cat /sys/class/virtio-ports/vport*p1/name; echo to a file >/dev/hvc0\n")
            #expect(davit.waitFor("org.example.agent\r\n", seconds: 30))
            davit.type("(read line; echo got $line) </dev/vport0p1; echo hello $((40+\(round))) >/dev/vport0p1\n")
            _ = send(program, "bytes\n", 6, 0)
            #expect(davit.waitFor("got bytes\r\n", seconds: 30))
            var buffer = [UInt8](repeating: 0, count: 9)
            #expect(recv(program, &buffer, buffer.count, Int32(MSG_WAITALL)) == 9)
            #expect(String(decoding: buffer, as: UTF8.self) == "hello 4\(round)\n")
            davit.type(round == 1 ? "reboot -f\n" : "poweroff -f\n")
        }
        #expect(davit.waitForExit(seconds: 60) == 0)
        #expect(DavitProcess.contents(of: "\(path).log") == "to a file\r\nto a file\r\n")
        #expect(access(path, F_OK) != 0)
    }
}
