import DavitTesting
import Glibc
import Testing

/// A running Linux goes on with another engine: its vCPUs' state is saved on one and resumed on the other.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
final class EngineChangeTests {
    private let home: TemporaryDirectory

    init() throws { home = try TemporaryDirectory() }

    deinit { davit("kill", "linux") }

    @discardableResult
    private func davit(_ arguments: String...) -> (status: Int32, output: String) {
        let command = ["timeout", "60", "env", "DAVIT_HOME=" + home.path, DavitProcess.path] + arguments
        return (try? Tool.start(command)) ?? (-1, "davit does not start")
    }

    /// Starts processes without end, and says what they count and how late it is. KVM without hardware shows programs the host's own CPUID,
    /// AVX-512 with it, which the software engine does not have: glibc is told to do without (its manual, 39.7; an option that the kernel does not
    /// know goes to init's environment).
    private static let commandLine =
        "console=ttyS0 quiet GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW "
        + "davit.run=while+:;do+ls+/bin|wc+-l;echo+at+$(cat+/proc/uptime);usleep+100000;done"

    private func start(engine: String, cpus: Int, _ more: String...) throws {
        let arguments = [
            "timeout", "60", "env", "DAVIT_HOME=" + home.path, DavitProcess.path, "run", "-d", "-n", "linux",
            "--engine",
            engine, "--cpus", "\(cpus)", "--memory", "256M", "--kernel", LinuxGuest.kernel612, "--initrd",
            LinuxGuest.initramfs, "--cmdline", Self.commandLine,
        ]
        _ = try Tool.run(arguments + more)
    }

    /// The lines that the guest has said.
    private var lines: [Substring] { davit("logs", "linux").output.split(whereSeparator: \.isNewline) }
    private var rounds: [Substring] { lines.filter { $0.hasPrefix("at ") } }

    private func waitForRounds(_ count: Int) -> Bool {
        for _ in 0..<1200 {
            if rounds.count >= count { return true }
            usleep(100_000)
        }
        return false
    }

    @Test(
        .enabled(if: TestEngine.hasKVM, "/dev/kvm"), arguments: ["soft", "kvm,irqchip=split"], [1, 2])
    func linuxGoesOn(first: String, cpus: Int) throws {
        try start(engine: first, cpus: cpus, "--cpu", "baseline")
        try #require(waitForRounds(3))
        for engine in first == "soft" ? ["kvm", "soft", "kvm", "soft"] : ["soft", "kvm", "soft", "kvm"] {
            #expect(davit("engine", "linux", engine) == (0, "linux\n"))
            #expect(waitForRounds(rounds.count + 5))
        }
        let said = lines
        // Every count is the same, and no clock has jumped.
        #expect(Set(said.filter { UInt($0) != nil }).count == 1, "\(said.suffix(40))")
        let times = rounds.compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Double($0) } }
        #expect(zip(times, times.dropFirst()).allSatisfy { $0 < $1 && $1 < $0 + 30 }, "\(times)")
        #expect(!said.contains { $0.contains("BUG") || $0.contains("egfault") || $0.contains("WARNING") }, "\(said)")
    }

    @Test func whatCannotChangeSaysSo() throws {
        try start(engine: "soft", cpus: 1)
        #expect(
            davit("engine", "linux", "soft")
                == (
                    1,
                    "davit: machine 'linux' goes on as it was: a machine changes its engine if it was started with --cpu baseline, and with --engine soft or kvm,irqchip=split\n"
                ))
        #expect(waitForRounds(1))
        #expect(
            davit("engine", "linux", "quantum")
                == (64, "davit: 'quantum' is not an engine to change to: give soft or kvm; see 'davit help engine'\n"))
        davit("kill", "linux")
        #expect(
            davit("engine", "linux", "soft")
                == (1, "davit: machine 'linux' is not running, so there is nothing to change the engine of\n"))
    }
}
