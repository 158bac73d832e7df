import DavitTesting
import Glibc
import Testing

/// Machines that are kept: each a process of its own, that outlives the command which started it.
@Suite(.enabled(if: DavitProcess.isBuilt, "make build"), .timeLimit(.minutes(2))) final class NamedMachineTests {
    private let home: TemporaryDirectory
    /// sti; hlt; jmp: runs until somebody ends it.
    private let idle = HandMadeKernel(code: [0xFB, 0xF4, 0xEB, 0xFD])
    /// mov al, 0x10; out 0xf4, al
    private let quick = HandMadeKernel(code: [0xB0, 0x10, 0xE6, 0xF4, 0xF4])

    init() throws { home = try TemporaryDirectory() }

    deinit {
        let left = davit("list", "--quiet").output.split(separator: "\n").map(String.init)
        if !left.isEmpty { _ = davit(["kill"] + left) }
    }

    @discardableResult
    private func davit(_ arguments: String...) -> (status: Int32, output: String) { davit(arguments) }

    private func davit(_ arguments: [String]) -> (status: Int32, output: String) {
        let command = ["timeout", "60", "env", "DAVIT_HOME=" + home.path, DavitProcess.path] + arguments
        return (try? Tool.start(command)) ?? (-1, "davit does not start")
    }

    private func start(_ name: String, _ kernel: HandMadeKernel, _ more: String...) -> (status: Int32, output: String) {
        davit(["run", "-d", "-n", name, "--engine", "soft", "--memory", "64", "--kernel", kernel.path] + more)
    }

    /// A member of what `davit inspect` prints.
    private func inspect(_ name: String, _ member: String) -> String {
        let text = davit("inspect", "--format", "table", name).output
        let line = text.split(separator: "\n").first { $0.hasPrefix(member + " ") }
        return line.map { String($0.dropFirst(member.count).drop { $0 == " " }) } ?? ""
    }

    @Test func oneLife() {
        #expect(start("web", idle) == (0, "web\n"))
        #expect(davit("list", "-q") == (0, "web\n"))
        #expect(inspect("web", "state") == "running")
        #expect(davit("pause", "web") == (0, "web\n"))
        #expect(inspect("web", "state") == "paused")
        #expect(davit("pause", "web") == (1, "davit: machine 'web' is paused already\n"))
        #expect(davit("resume", "web") == (0, "web\n"))
        #expect(davit("remove", "web").status == 1)
        #expect(davit("restart", "--time", "0", "web") == (0, "web\n"))
        #expect(inspect("web", "state") == "running")
        #expect(davit("stop", "--time", "0", "web") == (0, "web\n"))
        #expect(davit("list", "-q") == (0, ""))
        #expect(davit("list", "-aq") == (0, "web\n"))
        #expect(inspect("web", "state") == "exited")
        #expect(davit("remove", "web") == (0, "web\n"))
        #expect(davit("list", "-aq") == (0, ""))
        #expect((try? Tool.run(["ls", "-A", home["machines"]])) == "")
    }

    @Test func createdIsNotStarted() {
        #expect(davit("create", "-n", "web", "--kernel", quick.path, "--device", "debug-exit") == (0, "web\n"))
        #expect(inspect("web", "state") == "created")
        #expect(davit("start", "--attach", "web").status == 0x21)
        #expect(inspect("web", "state") == "exited")
    }

    /// It ends with status 33 each time.
    @Test func aMachineBeginsAgain() {
        let arguments = [
            "run", "-n", "web", "--engine", "soft", "--memory", "64", "--kernel", quick.path, "--device", "debug-exit",
        ]
        #expect(davit(arguments + ["--restart", "on-failure:2"]).status == 0x21)
        #expect(inspect("web", "restarts") == "2")
        #expect(inspect("web", "state") == "exited")
        #expect(davit("remove", "web") == (0, "web\n"))
        #expect(davit(arguments + ["-d", "--restart", "always"]) == (0, "web\n"))
        usleep(1_500_000)
        #expect(davit("list", "-q") == (0, "web\n"))
        let count = Int(inspect("web", "restarts")) ?? 0
        #expect((2...6).contains(count), "\(count) restarts")
        #expect(davit("stop", "web") == (0, "web\n"))
        #expect(davit("list", "-q") == (0, ""))
        #expect(davit("inspect", "web").output.contains(#""restart":"always""#))
    }

    /// A Linux whose panic the machine hears of, by pvpanic.
    @Test(.enabled(if: LinuxGuest.isThere, "scripts/setup")) func aLinuxThatPanicsBeginsAgain() {
        setenv("DAVIT_HOME", home.path, 1)
        defer { unsetenv("DAVIT_HOME") }
        let run = LinuxGuest.start("-n", "linux", "--restart", "on-failure:1")
        for _ in 0..<2 {
            #expect(run.waitFor(LinuxGuest.prompt))
            run.type("echo c >/proc/sysrq-trigger\n")
        }
        #expect(run.waitForExit() == 80)
        #expect(inspect("linux", "restarts") == "1")
    }

    @Test func restartFlagsThatCannotBe() {
        let kept = ["create", "-n", "web", "--kernel", idle.path]
        #expect(davit(kept + ["--restart", "sometimes"]).status == 64)
        #expect(davit(kept + ["--restart", "on-failure:0"]).status == 64)
        #expect(davit(kept + ["--restart", "always", "--rm"]).status == 64)
        #expect(davit("run", "--kernel", idle.path, "--restart", "always").status == 64)
        #expect(davit("list", "-aq") == (0, ""))
        #expect(davit(kept + ["-e", "A=b", "-e", "=c"]).status == 64)
        #expect(davit(kept + ["-e", "A=b"]) == (0, "web\n"))
        #expect(davit("inspect", "web").output.contains(#""environment":["A=b"]"#))
    }

    @Test func theStatusIsThatOfTheGuest() {
        let arguments = [
            "run", "--rm", "-n", "web", "--engine", "soft", "--kernel", quick.path, "--device", "debug-exit",
        ]
        #expect(davit(arguments) == (0x21, ""))
        #expect((try? Tool.run(["ls", "-A", home["machines"]])) == "")
    }

    @Test func aKilledProcessLeavesNoDoubt() {
        #expect(start("web", idle).status == 0)
        _ = kill(pid_t(inspect("web", "pid")) ?? 0, SIGKILL)
        usleep(300_000)
        #expect(davit("list", "-q") == (0, ""))
        #expect(inspect("web", "state") == "died")
        #expect(davit("start", "web") == (0, "web\n"))
        #expect(davit("remove", "--force", "web") == (0, "web\n"))
        #expect((try? Tool.run(["ls", "-A", home["machines"]])) == "")
    }

    @Test(arguments: ["start", "stop", "kill", "pause", "resume", "restart", "remove", "inspect", "logs", "console"])
    func whatIsMissingIsSaidSo(verb: String) {
        #expect(
            davit(verb, "web") == (1, "davit: there is no machine 'web'; 'davit list --all' shows those that are\n"))
    }

    @Test func whatDoesNotRunIsSaidSo() {
        #expect(davit("create", "-n", "web", "--kernel", idle.path).status == 0)
        for verb in ["kill", "pause", "resume"] {
            #expect(davit(verb, "web") == (1, "davit: machine 'web' is not running, so there is nothing to \(verb)\n"))
        }
        #expect(davit("console", "web") == (1, "davit: machine 'web' is not running; 'davit start web' starts it\n"))
        #expect(davit("stop", "web") == (0, "web\n"))
        #expect(davit("logs", "web") == (0, ""))
    }

    @Test func whatRunsIsSaidSo() {
        #expect(start("web", idle).status == 0)
        #expect(davit("start", "web") == (1, "davit: machine 'web' is running; 'davit stop web' stops it\n"))
        #expect(
            davit("remove", "web") == (
                1, "davit: machine 'web' is running; 'davit stop web' stops it, or add --force\n"
            ))
        #expect(
            start("web", idle) == (
                1, "davit: there is a machine 'web' already; choose another name, or 'davit remove web' first\n"
            ))
    }

    @Test func aMistakeLeavesNothingBehind() {
        let missing = davit("run", "-d", "-n", "web", "--kernel", "/nonexistent")
        #expect(missing.status == 66)
        #expect(missing.output.hasPrefix("davit: --kernel") && missing.output.filter { $0 == "\n" }.count == 1)
        #expect(davit("run", "-d", "-n", "a/b", "--kernel", idle.path).status == 1)
        #expect(davit("create", "-n", "web", "--kernel", idle.path, "--cloud-init", "/nonexistent").status == 1)
        #expect(davit("create", "-n", "web", "--kernel", idle.path, "--cloud-init", DavitProcess.path).status == 1)
        #expect(davit("list", "-aq") == (0, ""))
    }

    @Test(.enabled(if: LinuxGuest.isThere, "make setup")) func linuxGoesOnWithoutItsTerminal() throws {
        let terminal = PseudoTerminal()
        setenv("DAVIT_HOME", home.path, 1)
        defer { unsetenv("DAVIT_HOME") }
        do {
            let run = LinuxGuest.start(streams: .terminal(terminal), "-n", "linux")
            #expect(run.waitFor(LinuxGuest.prompt))
            run.type("echo a$((40 + 2))b\n")
            #expect(run.waitFor("a42b"))
            // As when its window is closed.
            run.signal(SIGKILL)
        }
        #expect(davit("list", "-q") == (0, "linux\n"))
        #expect(davit("logs", "linux").output.contains("a42b"))
        let another = PseudoTerminal()
        let console = DavitProcess(["console", "linux"], streams: .terminal(another))
        console.type("echo c$((50 + 2))d\n")
        #expect(console.waitFor("c52d"))
        console.type("poweroff -f\n")
        #expect(console.waitForExit() == 0)
        withExtendedLifetime(another) {}
        #expect(inspect("linux", "state") == "exited")
    }

    @Test func aGuestWithoutAgentIsNotWaitedForLong() throws {
        #expect(davit("disk", "create", home["disk.raw"], "1M").status == 0)
        #expect(davit("image", "import", home["disk.raw"], "bare").status == 0)
        #expect(start("web", idle, "--network", "none", "bare").status == 0)
        // As if it had been running for years.
        _ = try home.file("machines/web/run.json", Array(#"{"started":1,"restarts":0}"#.utf8))
        let begin = time(nil)
        let (status, output) = davit("exec", "web", "true")
        #expect(status == 125 && output.contains("has no agent that answers"), "\(output)")
        #expect((9...20).contains(time(nil) - begin))
    }

    @Test func networksAreTheMachines() {
        let published = ["-p", "8080:80", "-p", "127.0.0.1:5353:53/udp"]
        #expect(davit(["create", "-n", "web", "--kernel", idle.path] + published) == (0, "web\n"))
        #expect(davit("create", "-n", "alone", "--kernel", idle.path) == (0, "alone\n"))
        #expect(davit("network", "list") == (0, "MACHINE   NETWORK   PORTS   ADDRESSES\n"))
        #expect(
            davit("network", "list", "-a").output.split(separator: "\n").last
                == "web       user      8080->80/tcp 127.0.0.1:5353->53/udp   -")
        #expect(
            davit("network", "inspect", "web").output.contains(
                #""transport":"udp","address":"127.0.0.1","host":5353,"guest":53"#))
        #expect(davit("network", "inspect", "alone").output.contains(#""cards":[]"#))
        #expect(davit("network", "inspect", "nosuch").status == 1)
    }

    @Test func renamedAndCloned() {
        #expect(davit("create", "-n", "one", "--kernel", quick.path, "--device", "debug-exit") == (0, "one\n"))
        #expect(davit("rename", "one", "two") == (0, "two\n"))
        #expect(davit("clone", "two", "three") == (0, "three\n"))
        #expect(davit("list", "-aq") == (0, "three\ntwo\n"))
        #expect(davit("start", "--attach", "three").status == 0x21)
        let taken = "davit: there is a machine 'two' already; choose another name, or 'davit remove two' first\n"
        #expect(davit("rename", "three", "two") == (1, taken))
        #expect(davit("clone", "three", "two") == (1, taken))
        #expect(davit("rename", "three", "a/b").status == 1)
        #expect(start("web", idle).status == 0)
        let running = "davit: machine 'web' is running; 'davit stop web' stops it\n"
        #expect(davit("rename", "web", "four") == (1, running))
        #expect(davit("clone", "web", "four") == (1, running))
    }

    @Test func completionKnowsNames() {
        #expect(davit("create", "-n", "web", "--kernel", quick.path).status == 0)
        let script = davit("completion", "bash")
        #expect(script.status == 0 && script.output.contains("davit"))
        #expect(davit("---completion", "start", "--", "positional@0", "1", "0", "davit", "start").output == "web\n")
        #expect(davit("completion", "dos").status == 64)
    }

    @Test func whatNeedsAGuestSaysSo() {
        #expect(
            davit("exec", "web", "true") == (
                125, "davit: there is no machine 'web'; 'davit list --all' shows those that are\n"
            ))
        #expect(davit("create", "-n", "web", "--kernel", idle.path).status == 0)
        let noAgent =
            "davit: machine 'web' has no agent in its guest; those have one that are made from an image of 'davit image pull'\n"
        for verb in ["exec", "shell"] {
            #expect(davit([verb, "web"] + (verb == "exec" ? ["true"] : [])) == (125, noAgent))
        }
        #expect(
            davit("cp", "web:/etc/motd", home.path) == (1, noAgent))
        #expect(davit("cp", "a", "b").status == 64)
        #expect(davit("cp", "web:a", "web:b").status == 64)
        #expect(davit("exec", "web").status == 64)
        #expect(davit("run", "--kernel", idle.path, "--", "true").status == 64)
        #expect(davit("stats", "web") == (1, "davit: machine 'web' is not running; 'davit start web' starts it\n"))
        #expect(davit("image", "pull", "fedora").status == 1)
    }

    @Test func manyAtOnceLeaveNothing() throws {
        let script = """
            for round in 1 2 3 4 5; do
                for n in 1 2 3 4; do
                    ( "$DAVIT" run -d --rm -n m$n --engine soft --memory 64 --kernel "$KERNEL" && "$DAVIT" kill m$n ) &
                done
                wait
            done
            """
        let (status, output) = try Tool.start([
            "timeout", "100", "env", "DAVIT_HOME=" + home.path, "DAVIT=" + DavitProcess.path, "KERNEL=" + idle.path,
            "sh",
            "-c", script,
        ])
        #expect(status == 0)
        #expect(output.split(separator: "\n").count == 40, "\(output)")
        #expect(try Tool.run(["ls", "-A", home["machines"]]) == "")
    }
}
