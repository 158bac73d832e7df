import Glibc
import Testing

/// A host that kills, signals and runs full: what it does to a machine stays with that machine.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(10)))
struct RoughHostTests {
    /// Sends signals to the threads of a process whose names begin with davit-vcpu until it is gone, and writes down how many.
    private static let storm = """
        my ($process, $count, @signals) = @ARGV; my $n = 0;
        while (-d "/proc/$process") {
            my @threads = grep { open(F, "<", "/proc/$process/task/$_/comm"); (<F> // "") =~ /^davit-vcpu/ }
                map { s|.*/||r } glob("/proc/$process/task/*");
            for (1..200) {
                for my $thread (@threads) { for (@signals) { $n++ if syscall(234, $process + 0, $thread + 0, $_ + 0) == 0 } }
                select(undef, undef, undef, 0.0005);
            }
        }
        open(my $f, ">", "$count.new"); print $f $n; close $f; rename "$count.new", $count;
        """

    /// Signals that Davit uses itself and signals that it ignores, thousands a second to every vCPU's thread, from power-on to power-off.
    @Test(arguments: TestEngine.all) func signalsAllTheTime(engine: String) throws {
        let davit = LinuxGuest.start(engine: engine, cpus: 2)
        let count = "/tmp/davit-signals-\(getpid())"
        defer { unlink(count) }
        // SIGRTMIN as glibc has it is what the KVM engine kicks its vCPUs with; the others mean nothing to it.
        let numbers = ([SIGCHLD, SIGCONT, SIGURG, SIGWINCH] + (engine == "kvm" ? [34] : [])).map { "\($0)" }
        try Shell.run(
            "perl -e '\(Self.storm)' \(davit.number) \(count) \(numbers.joined(separator: " ")) </dev/null >/dev/null 2>&1 &"
        )
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: 240))
        davit.type("for i in 1 2 3 4 5; do ls /bin | wc -l; done | sort -u | wc -l; echo U$((40+2))U\n")
        #expect(davit.waitFor("\r\n1\r\nU42U", seconds: 120))
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
        for _ in 0..<500 where access(count, F_OK) != 0 { usleep(10_000) }
        #expect((Int(DavitProcess.contents(of: count)) ?? 0) > 1000)
    }

    /// No thread, child, socket or lock keeps a killed machine's network helper or disk.
    @Test(arguments: TestEngine.all) func killedNothingIsLeft(engine: String) throws {
        let disk = "/tmp/davit-killed-\(getpid()).raw"
        try Shell.run("truncate -s 8M \(disk)")
        defer { unlink(disk) }
        for _ in 0..<5 {
            let davit = LinuxGuest.start(
                engine: engine, commandLine: "console=ttyS0 davit.run=sleep+1000", "--network", "user", "--disk", disk)
            #expect(davit.waitFor("Linux version", seconds: 60))
            let children = davit.children
            #expect(children.count == 1, "passt alone")
            davit.signal(SIGKILL)
            #expect(davit.waitForExit(seconds: 20) == 128 + SIGKILL)
            for _ in 0..<500 where children.contains(where: DavitProcess.isThere) { usleep(10_000) }
            #expect(!children.contains(where: DavitProcess.isThere))
        }
    }

    @Test(arguments: TestEngine.all) func logOnAFullDisk(engine: String) {
        let davit = LinuxGuest.start(
            engine: engine, commandLine: "console=ttyS0 quiet davit.run=echo+guest+is+up", "--log", "/dev/full",
            "--log",
            "debug")
        #expect(davit.waitForExit(seconds: 240) == 0)
        #expect(davit.text.contains("davit: --log: lines are lost (No space left on device); the machine goes on\n"))
        #expect(davit.text.contains("guest is up"))
    }

    @Test(arguments: TestEngine.all) func serialOutputToAFullDisk(engine: String) {
        let davit = LinuxGuest.start(
            engine: engine, "--serial", "file,path=/dev/full")
        #expect(davit.waitForExit(seconds: 240) == 74)
        #expect(
            davit.text
                == "davit: nobody takes the guest's serial output any more (write: No space left on device); --serial none runs without\n"
        )
    }

    /// Threads have names, and run where they are told to.
    @Test(arguments: TestEngine.all) func processorsOfItsOwn(engine: String) {
        let davit = LinuxGuest.start(engine: engine, cpus: "1,affinity=0")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: 240))
        let threads = davit.threads.filter { $0.name.hasPrefix("davit-vcpu") }
        #expect(threads.map(\.name).sorted() == ["davit-vcpu0"])
        for thread in threads {
            #expect(
                DavitProcess.contents(of: "/proc/\(davit.number)/task/\(thread.number)/status").contains(
                    "Cpus_allowed_list:\t0\n"))
        }
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    /// What the kernel says of the guest's RAM in /proc/PID/smaps (proc(5)) is what was asked for, and Linux runs on it.
    @Test(
        arguments: TestEngine.all,
        [
            ("192M,shared=off", "KernelPageSize:        4 kB", " rd wr mr mw me "),
            ("192M,shared=off,mergeable=on", "KernelPageSize:        4 kB", " mg "),
            ("192M,hugepages=on", "KernelPageSize:     2048 kB", " sh "),
            ("192M,hugepages=on,shared=off", "KernelPageSize:     2048 kB", " ht "),
        ])
    func memoryOfAKind(engine: String, kind: (memory: String, pageSize: String, flags: String)) throws {
        let pool = "/proc/sys/vm/nr_hugepages"
        let before = String(DavitProcess.contents(of: pool).prefix { !$0.isNewline })
        if kind.memory.contains("hugepages") {
            try? Shell.run("echo $((\(before) + 96)) >\(pool)")
            guard DavitProcess.contents(of: pool) != before + "\n" else {
                print("WARNING: this host's pool of huge pages cannot be raised: \(kind.memory) is not tested")
                return
            }
        }
        defer { if kind.memory.contains("hugepages") { try? Shell.run("echo \(before) >\(pool)") } }
        let davit = LinuxGuest.start(engine: engine, memory: kind.memory)
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: 240))
        // A mapping's lines end with its flags.
        var lines: [Substring] = []
        var isFound = false
        for line in DavitProcess.contents(of: "/proc/\(davit.number)/smaps").split(separator: "\n") {
            lines.append(line)
            guard line.hasPrefix("VmFlags:") else { continue }
            isFound =
                isFound
                || lines.contains("Size:             196608 kB") && lines.contains(kind.pageSize[...])
                    && (line + " ").contains(kind.flags)
            lines = []
        }
        #expect(isFound)
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }
}
