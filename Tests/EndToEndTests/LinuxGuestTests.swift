import Glibc
import HostLinux
import Testing

/// Debian's kernels from power-on to power-off, as a user drives them.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(15)))
struct LinuxGuestTests {
    /// How long a guest may take to its shell, in seconds; generous, because other work may share the host.
    private let patience = 240

    @Test(arguments: [LinuxGuest.kernel61, LinuxGuest.kernel612], [1, 2])
    func bootsToAShellAndPowersOff(kernel: String, cpus: Int) {
        let davit = LinuxGuest.start(kernel: kernel, cpus: cpus)
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("cat /sys/devices/system/clocksource/clocksource0/current_clocksource; echo T$((40+2))T\n")
        #expect(davit.waitFor("\r\ntsc\r\nT42T", seconds: 60))
        davit.type("nproc; echo N$((40+2))N\n")
        #expect(davit.waitFor("\r\n\(cpus)\r\nN42N", seconds: 60))
        // No warnings, but for one that every guest without a _CPC object in its DSDT has on an AMD CPU, and that of RTC interrupts
        // lost when the host had no time for the guest.
        davit.type("dmesg -r | grep '^<[0-4]>' | grep -Ev '_CPC|RTC'; echo W$((40+2))W\n")
        #expect(davit.waitFor("+2))W\r\nW42W", seconds: 60), "\(davit.text)")
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    @Test(
        .enabled(if: TestEngine.hasKVM),
        arguments: [
            ("kvm", LinuxGuest.kernel61, 1), ("kvm,dirty-log=ring", LinuxGuest.kernel612, 2),
            ("kvm,irqchip=split,dirty-log=ring", LinuxGuest.kernel612, 1),
            ("kvm,irqchip=split", LinuxGuest.kernel612, 2),
        ])
    func bootsToAShellOnKVM(engine: String, kernel: String, cpus: Int) {
        let davit = LinuxGuest.start(engine: engine, kernel: kernel, cpus: cpus)
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("sleep 1; nproc; echo T$((40+2))T\n")
        #expect(davit.waitFor("\r\n\(cpus)\r\nT42T", seconds: 60))
        // Many processes, each of which goes in and out of the kernel: none may lose a register, a flag or a page by it.
        davit.type("for i in $(seq 40); do ls /bin | wc -l; done | sort -u | wc -l; echo U$((40+2))U\n")
        #expect(davit.waitFor("\r\n1\r\nU42U", seconds: patience))
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    /// While another program has half of the vCPU's processor, the guest's clock counts that as stolen, and tells `top`.
    @Test(.enabled(if: HostInformation.mayRun(onProcessor: 0)), arguments: TestEngine.all)
    func whatTheHostTakesIsStealTime(engine: String) throws {
        let busy = try ChildProcess(["taskset", "-c", "0", "sh", "-c", "while :; do :; done"]).start()
        defer {
            kill(busy, SIGKILL)
            waitpid(busy, nil, 0)
        }
        let davit = LinuxGuest.start(engine: engine, cpus: "1,affinity=0")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; set -- $(head -n 1 /proc/stat)\n")
        // proc(5): user, nice, system, idle, iowait, irq, softirq, steal, in hundredths of a second.
        davit.type("[ $9 -ge 10 ] && echo S$((40+2))S; poweroff -f\n")
        #expect(davit.waitForExit(seconds: patience) == 0)
        #expect(davit.text.contains("S42S"), "\(davit.text)")
    }

    @Test(arguments: [LinuxGuest.vmlinux61, LinuxGuest.vmlinux612])
    func bootsAsELFThroughPVH(kernel: String) {
        let davit = LinuxGuest.start(
            kernel: kernel, commandLine: "console=ttyS0 quiet davit.run=dmesg|grep+-i+hypervisor;echo+guest+is+up")
        #expect(davit.waitForExit(seconds: patience) == 0)
        #expect(davit.text.contains("guest is up"))
    }

    @Test func shellHasJobControl() {
        let davit = LinuxGuest.start()
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("sleep 1000\n")
        sleep(2)
        davit.type("\u{3}")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: 30))
        davit.type("sleep 1000 & jobs\n")
        #expect(davit.waitFor("Running", seconds: 30))
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    @Test func rebootReboots() {
        let davit = LinuxGuest.start()
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("reboot -f\n")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    @Test func panicEndsAsARebootIfTheKernelIsToldSo() {
        let davit = LinuxGuest.start(
            commandLine: "console=ttyS0 panic=-1 davit.run=echo+c>/proc/sysrq-trigger", "--no-reboot")
        #expect(davit.waitForExit(seconds: patience) == 0)
        #expect(davit.text.contains("Kernel panic - not syncing: sysrq triggered crash"))
    }

    @Test func panicIsReported() {
        let davit = LinuxGuest.start(commandLine: "console=ttyS0 davit.run=echo+c>/proc/sysrq-trigger")
        #expect(davit.waitForExit(seconds: patience) == 80)
        #expect(davit.text.contains("davit: the guest reports a panic"))
    }

    @Test func standardInputMayBeClosedFromTheStart() {
        let davit = LinuxGuest.start(commandLine: "console=ttyS0 quiet davit.run=seq+1+20000")
        davit.closeInput()
        #expect(davit.waitForExit(seconds: patience) == 0)
        let numbers = davit.text.split(whereSeparator: \.isNewline).compactMap { Int($0) }
        #expect(numbers == Array(1...20000))
    }
}
