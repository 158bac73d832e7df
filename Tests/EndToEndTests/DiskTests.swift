import Glibc
import Testing

/// A guest with a disk of its own, as a user gives it one.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(15)))
struct DiskTests {
    private let patience = 240

    /// A file system with one file in it; nil if the host cannot make one.
    private func makeDisk() throws -> String {
        let path = "/tmp/davit-disk-\(getpid()).raw"
        try Shell.run("mkdir -p \(path).d && echo from the host >\(path).d/greeting && rm -f \(path)")
        try Shell.run("/sbin/mke2fs -q -t ext4 -d \(path).d \(path) 32M")
        return path
    }

    /// KVM's guests get the disk's interrupts by routes and eventfds of the host's kernel.
    @Test(
        arguments: [("soft", LinuxGuest.kernel61), ("soft", LinuxGuest.kernel612)]
            + (TestEngine.hasKVM
                ? [("kvm", LinuxGuest.kernel61), ("kvm,irqchip=split", LinuxGuest.kernel612)] : []))
    func debiansDriverReadsAndWritesTheDisk(engine: String, kernel: String) throws {
        let disk = try makeDisk()
        defer { try? Shell.run("rm -rf \(disk) \(disk).d") }
        let davit = LinuxGuest.start(
            engine: engine, kernel: kernel,
            commandLine:
                "console=ttyS0 quiet davit.run=mount+/dev/vda+/root;cd+/root;cat+greeting;"
                + "dd+if=/dev/urandom+of=noise+bs=64k+count=64;sync;md5sum+noise;cd+/;umount+/root;reboot+-f",
            "--disk", disk, "--no-reboot")
        #expect(davit.waitForExit(seconds: patience) == 0)
        #expect(davit.text.contains("from the host"))
        let sum = davit.text.split(whereSeparator: \.isWhitespace).map(String.init).first {
            $0.count == 32 && $0.allSatisfy(\.isHexDigit)
        }
        try Shell.run("/sbin/e2fsck -fn \(disk) >/dev/null")
        let written = try #require(sum)
        try Shell.run("/sbin/debugfs -R 'cat noise' \(disk) 2>/dev/null | md5sum | grep -q \(written)")
    }

    @Test func aReadOnlyDiskStaysAsItIs() throws {
        let disk = try makeDisk()
        defer { try? Shell.run("rm -rf \(disk) \(disk).d") }
        try Shell.run("md5sum \(disk) >\(disk).d/sum")
        let davit = LinuxGuest.start(
            commandLine:
                "console=ttyS0 quiet davit.run=mount+/dev/vda+/root;mount+-o+ro+/dev/vda+/root;cat+/root/greeting;"
                + "dd+if=/dev/zero+of=/dev/vda+bs=4k+count=1;cat+/sys/block/vda/ro",
            "--disk", disk + ",readonly=on")
        #expect(davit.waitForExit(seconds: patience) == 0)
        #expect(davit.text.contains("from the host"))
        try Shell.run("md5sum -c --status \(disk).d/sum")
    }

    @Test func aDiskServesOneMachine() throws {
        let disk = try makeDisk()
        defer { try? Shell.run("rm -rf \(disk) \(disk).d") }
        let first = LinuxGuest.start(commandLine: "console=ttyS0 quiet", "--disk", disk)
        #expect(first.waitFor(LinuxGuest.prompt, seconds: patience))
        let second = LinuxGuest.start("--disk", disk)
        #expect(second.waitForExit(seconds: 60) == 66)
        #expect(second.text.contains("--disk \(disk)"))
        first.type("poweroff -f\n")
        #expect(first.waitForExit(seconds: 60) == 0)
    }

    /// Runs commands in a guest with the disk, with davit as a program that strace runs, which notes the calls named or does to them what
    /// it is told. `meanwhile` gets davit's process number, when the guest is at its shell.
    private func traced(
        _ strace: [String], _ disk: String, _ command: String, meanwhile: (pid_t) throws -> Void
    ) throws {
        let davit = DavitProcess(
            [
                "run", "--engine", "soft", "--kernel", LinuxGuest.kernel61, "--initrd", LinuxGuest.initramfs,
                "--cmdline", "console=ttyS0 quiet", "--memory", "256M", "--disk", disk,
            ], through: ["strace", "-f", "--seccomp-bpf", "-qq"] + strace)
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        try meanwhile(try #require(davit.children.first))
        davit.type(command + "; echo done $((40 + 2)); poweroff -f\n")
        #expect(davit.waitFor("done 42", seconds: patience), "\(davit.text.suffix(1000))")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    /// A flush is an fdatasync but with cache=unsafe, and cache=none goes past the page cache (O_DIRECT).
    @Test(
        .enabled(if: Shell.canTrace, "strace cannot trace here"),
        arguments: [("writeback", true, false), ("none", true, true), ("unsafe", false, false)])
    func cacheModes(mode: String, isSynced: Bool, isDirect: Bool) throws {
        let disk = try makeDisk()
        defer { try? Shell.run("rm -rf \(disk) \(disk).d") }
        let calls = "\(disk).d/calls"
        try traced(
            ["-e", "trace=fdatasync", "-o", calls], "\(disk),cache=\(mode)",
            "mount /dev/vda /root && cat /bin/busybox >/root/copy && sync && umount /root"
        ) { process in
            // Flags are octal; O_DIRECT is 040000.
            try Shell.run(
                """
                for file in /proc/\(process)/fd/*; do
                    [ "$(readlink $file)" != \(disk) ] || cat /proc/\(process)/fdinfo/${file##*/}
                done >\(disk).d/flags
                \(isDirect ? "" : "!") grep -Eq '^flags:.*[4-7][0-7]{4}$' \(disk).d/flags
                """)
        }
        try Shell.run("\(isSynced ? "" : "!") grep -q 'fdatasync.*= 0' \(calls)")
        try Shell.run("/sbin/e2fsck -fn \(disk) >/dev/null")
        try Shell.run("/sbin/debugfs -R 'cat copy' \(disk) 2>/dev/null | cmp - $(command -v busybox)")
    }

    /// Without io_uring, which containers often forbid, threads do the work.
    @Test(.enabled(if: Shell.canTrace, "strace cannot trace here"), arguments: ["writeback", "none"])
    func aHostWithoutIOUring(mode: String) throws {
        let disk = try makeDisk()
        defer { try? Shell.run("rm -rf \(disk) \(disk).d") }
        try traced(
            [
                "-e", "trace=io_uring_setup", "-e", "inject=io_uring_setup:error=EPERM", "-o", "\(disk).d/calls",
            ], "\(disk),cache=\(mode)",
            "mount /dev/vda /root && cat /bin/busybox >/root/copy && umount /root && mount /dev/vda /root "
                + "&& cmp /bin/busybox /root/copy && umount /root"
        ) { process in
            try Shell.run("grep -q 'io_uring_setup.*EPERM' \(disk).d/calls")
            try Shell.run("! grep -q disk-ring /proc/\(process)/task/*/comm")
        }
        try Shell.run("/sbin/e2fsck -fn \(disk) >/dev/null")
        try Shell.run("/sbin/debugfs -R 'cat copy' \(disk) 2>/dev/null | cmp - $(command -v busybox)")
    }

    /// 4 MiB at 1 MiB a second, and 150 requests at 50 a second, less what a tenth of a second gives at once; past the guest's cache.
    @Test func limitedDisks() throws {
        let disk = "/tmp/davit-limited-\(getpid())"
        try Shell.run("truncate -s 16M \(disk).a \(disk).b")
        defer { try? Shell.run("rm -f \(disk).a \(disk).b") }
        let davit = LinuxGuest.start(
            "--disk", "\(disk).a,format=raw,bps=1048576", "--disk", "\(disk).b,format=raw,iops=50")
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        for (command, seconds) in [
            ("dd if=/dev/vda of=/dev/null iflag=direct bs=64k count=64", 3.5),
            ("dd if=/dev/zero of=/dev/vdb oflag=direct bs=4k count=150", 2.5),
        ] {
            let start = ContinuousClock.now
            davit.type("\(command) 2>/dev/null && echo moved $((40 + 2))\n")
            #expect(davit.waitFor("moved 42", seconds: patience))
            #expect(ContinuousClock.now - start >= .seconds(seconds), "\(command)")
        }
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }
}
