import DavitTesting
import Glibc
import Testing

/// Debian's gdb with a machine, as a user has the two together.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
struct DebuggerTests {
    private static let gdb = "/usr/bin/gdb"
    private static var hasGDB: Bool { access(gdb, X_OK) == 0 }
    private static let engines = TestEngine.hasKVM ? ["soft", "kvm"] : ["soft"]
    private let patience = 240

    private func gdb(_ socket: String, _ commands: String...) -> DavitProcess {
        DavitProcess(
            ["-nx", "-q", "-batch", "-ex", "set pagination off", "-ex", "set remotetimeout 60"]
                + (["target remote \(socket)"] + commands).flatMap { ["-ex", $0] }, program: Self.gdb)
    }

    @Test(.enabled(if: hasGDB, "apt-get install gdb"), arguments: engines)
    func breakInAKernelThatRuns(engine: String) throws {
        let directory = try TemporaryDirectory()
        let socket = directory.path + "/gdb"
        let davit = LinuxGuest.start(engine: engine, cpus: 2, "--gdb", "unix:\(socket),wait=off")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("grep ' T __do_sys_newuname$\\| [tT] __x64_sys_newuname$' /proc/kallsyms; echo K$((40+2))K\n")
        #expect(davit.waitFor("K42K", seconds: 60))
        let line = try #require(
            davit.text.split(whereSeparator: \.isNewline).last { $0.hasSuffix(" __x64_sys_newuname") })
        let address = "0x" + line.prefix(16)
        let gdb = gdb(
            socket, "info threads", "break *\(address)", "echo ready\\n", "continue", "p/x $rip", "p/x $cs",
            "x/2xb $rip", "stepi", "p $rip > \(address)", "p/x $rip", "delete", "detach")
        #expect(gdb.waitFor("ready", seconds: 60))
        davit.type("uname -s; echo U$((40+2))U\n")
        #expect(gdb.waitForExit(seconds: 120) == 0)
        #expect(gdb.text.contains("Thread 2 (vCPU 1"))
        #expect(gdb.text.contains("Breakpoint 1, \(address)"))
        let digits = String(address.dropFirst(2).drop { $0 == "0" })
        #expect(gdb.text.contains("$1 = 0x\(digits)"))
        #expect(gdb.text.contains("$2 = 0x10"))
        #expect(gdb.text.contains("$3 = 1"))
        #expect(gdb.text.contains("detached"), "\(gdb.text)")
        // The guest goes on as if nothing had been.
        #expect(davit.waitFor("\r\nLinux\r\nU42U", seconds: 60))
        davit.type("dmesg -r | grep -c 'BUG\\|Oops'; poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
        #expect(access(socket, F_OK) != 0)
    }

    @Test(.enabled(if: hasGDB, "apt-get install gdb"), arguments: engines)
    func waitsForTheDebuggerAndIsKilled(engine: String) throws {
        let directory = try TemporaryDirectory()
        let socket = directory.path + "/gdb"
        let davit = LinuxGuest.start(engine: engine, "--gdb", "unix:\(socket)")
        #expect(davit.waitFor("waits for a debugger", seconds: 60))
        let gdb = gdb(socket, "x/1i $rip", "p/x $cr0", "stepi", "stepi", "info registers rip", "kill")
        #expect(gdb.waitForExit(seconds: 60) == 0)
        #expect(gdb.text.contains("$1 = 0x80000031"), "\(gdb.text)")
        // Past CLD and CLI.
        #expect(gdb.text.contains("rip            0x1000202"), "\(gdb.text)")
        _ = davit.waitForExit(seconds: 20)
        #expect(!davit.text.contains("Linux version"))
    }

    @Test func anAddressThatIsTaken() throws {
        let directory = try TemporaryDirectory()
        let socket = directory.path + "/gdb"
        let davit = LinuxGuest.start("--gdb", "unix:\(socket)")
        #expect(davit.waitFor("waits for a debugger", seconds: 60))
        let second = LinuxGuest.start("--gdb", "unix:\(socket)")
        #expect(second.waitForExit(seconds: 20) == 71)
        #expect(second.text == "davit: --gdb \(socket): something else has this address; choose another one\n")
        davit.signal(SIGTERM)
        _ = davit.waitForExit(seconds: 20)
    }
}
