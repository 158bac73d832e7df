import Glibc
import Testing

/// The terminal is raw while the guest runs, and as it was on every way out.
@Suite(.enabled(if: DavitProcess.isBuilt, "make build"), .serialized, .timeLimit(.minutes(5))) struct TerminalTests {
    /// A guest that says "up" and then waits for ever: mov dx, 0x3f8; out 'u', 'p', line feed; jmp $
    private let kernel = HandMadeKernel(
        code: [0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x75, 0xEE, 0xB0, 0x70, 0xEE, 0xB0, 0x0A, 0xEE, 0xEB, 0xFE])

    private func start(on terminal: PseudoTerminal, engine: String = "soft") -> DavitProcess {
        DavitProcess(
            ["run", "--engine", engine, "--kernel", kernel.path, "--memory", "16"], streams: .terminal(terminal))
    }

    @Test func controlAXEnds() {
        let terminal = PseudoTerminal()
        let davit = start(on: terminal)
        #expect(davit.waitFor("up\n"))
        #expect(!terminal.isCooked)
        davit.type("\u{1}h")
        #expect(davit.waitFor("Ctrl-A x"))
        davit.type("\u{1}x")
        #expect(davit.waitForExit(seconds: 20) == 0)
        #expect(terminal.isCooked)
    }

    @Test(arguments: TestEngine.all, [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL])
    func signalsPutItBack(engine: String, number: Int32) {
        let terminal = PseudoTerminal()
        let davit = start(on: terminal, engine: engine)
        #expect(davit.waitFor("up\n"))
        #expect(!terminal.isCooked)
        davit.signal(number)
        #expect(davit.waitForExit(seconds: 20) == 128 + number)
        #expect(terminal.isCooked)
    }

    /// The process cannot do it itself; its guard does, and goes too.
    @Test(arguments: TestEngine.all) func killedItIsPutBack(engine: String) {
        let terminal = PseudoTerminal()
        let davit = start(on: terminal, engine: engine)
        #expect(davit.waitFor("up\n"))
        let children = davit.children
        #expect(!children.isEmpty)
        #expect(!terminal.isCooked)
        davit.signal(SIGKILL)
        #expect(davit.waitForExit(seconds: 20) == 128 + SIGKILL)
        for _ in 0..<500 where !terminal.isCooked || children.contains(where: DavitProcess.isThere) { usleep(10_000) }
        #expect(terminal.isCooked)
        #expect(!children.contains(where: DavitProcess.isThere))
    }

    /// The other end of the terminal goes away, as a window that is closed or an ssh that breaks off.
    @Test(arguments: TestEngine.all) func closedItEndsTheMachine(engine: String) {
        let terminal = PseudoTerminal()
        let davit = start(on: terminal, engine: engine)
        #expect(davit.waitFor("up\n"))
        let children = davit.children
        terminal.hangUp()
        #expect(davit.waitForExit(seconds: 20) == 128 + SIGHUP)
        for _ in 0..<500 where children.contains(where: DavitProcess.isThere) { usleep(10_000) }
        #expect(!children.contains(where: DavitProcess.isThere))
    }

    @Test func stoppedJobLeavesItCooked() {
        let terminal = PseudoTerminal()
        let davit = start(on: terminal)
        #expect(davit.waitFor("up\n"))
        davit.signal(SIGTSTP)
        for _ in 0..<100 where !terminal.isCooked { usleep(10_000) }
        #expect(terminal.isCooked)
        davit.signal(SIGCONT)
        for _ in 0..<100 where terminal.isCooked { usleep(10_000) }
        #expect(!terminal.isCooked)
        davit.type("\u{1}x")
        #expect(davit.waitForExit(seconds: 20) == 0)
    }

    @Test func readerThatIsGoneEndsTheMachine() {
        let davit = DavitProcess(["run", "--engine", "soft", "--kernel", kernel.path, "--memory", "16"])
        davit.closeOutput()
        #expect(davit.waitForExit(seconds: 20) == 74)
    }
}
