import Glibc
import Testing

/// What can happen to a host's files and programs while a guest uses them: the guest sees an I/O error or a lost link, the user one clear
/// line, and the machine lives on.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(15)))
struct FailingHostTests {
    private static let isRoot = geteuid() == 0
    private let patience = 90
    private let place = "/tmp/davit-failing-\(getpid())"

    private func start(_ more: String...) throws -> DavitProcess {
        let davit = DavitProcess(
            [
                "run", "--engine", "soft", "--kernel", LinuxGuest.kernel61, "--initrd", LinuxGuest.initramfs,
                "--cmdline",
                "console=ttyS0 quiet", "--memory", "256M",
            ] + more)
        try #require(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        return davit
    }

    /// Types a command whose last words are the guest's answer, and waits for it.
    private func ask(_ davit: DavitProcess, _ command: String, _ answer: String) {
        davit.type(command + "\n")
        #expect(davit.waitFor(answer, seconds: patience), "\(command): \(davit.text.suffix(1000))")
    }

    /// The guest still does as it is told, and the user was told once.
    private func end(_ davit: DavitProcess, line: String) {
        ask(davit, "echo still $((40 + 2))", "still 42")
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
        let lines = davit.text.split(whereSeparator: \.isNewline).filter { $0.contains(line) }
        #expect(lines.count == 1)
    }

    @Test(.enabled(if: isRoot, "mounting a small file system needs root")) func aFullHostDisk() throws {
        try Shell.run("mkdir -p \(place) && mount -t tmpfs -o size=4M none \(place)")
        defer { try? Shell.run("umount -l \(place); rmdir \(place)") }
        for format in ["raw", "qcow2"] {
            let disk = "\(place)/disk.\(format)"
            try Shell.run("qemu-img create -q -f \(format) \(disk) 64M")
            let davit = try start("--disk", disk)
            ask(davit, "dd if=/dev/zero of=/dev/vda bs=64k count=256 conv=fsync 2>&1 | tr I i", "input/output error")
            // What fits, or is freed, goes on.
            ask(davit, "dd if=/dev/vda of=/dev/null bs=64k count=4 && echo read $((1 + 1))", "read 2")
            end(davit, line: "disk0: the guest gets an I/O error: no space left on the host")
            // Clusters for which the table had no room any more are lost (3), and nothing is corrupt (2).
            if format == "qcow2" { try Shell.run("qemu-img check -q \(disk) >/dev/null || [ $? = 3 ]") }
            try Shell.run("rm \(disk)")
        }
    }

    @Test func aFileThatIsCutShort() throws {
        let disk = "\(place).raw"
        try Shell.run("truncate -s 64M \(disk)")
        defer { try? Shell.run("rm -f \(disk)") }
        let davit = try start("--disk", disk)
        try Shell.run("truncate -s 1M \(disk)")
        ask(davit, "dd if=/dev/vda of=/dev/null bs=64k skip=512 count=1 2>&1 | tr I i", "input/output error")
        ask(davit, "dd if=/dev/vda of=/dev/null bs=64k count=1 && echo read $((1 + 1))", "read 2")
        end(davit, line: "disk0: the guest gets an I/O error: the file has become shorter")
    }

    @Test func aBackingFileThatVanishes() throws {
        let (base, disk) = ("\(place)-base.raw", "\(place).qcow2")
        try Shell.run("truncate -s 64M \(base) && qemu-img create -q -f qcow2 -b \(base) -F raw \(disk)")
        defer { try? Shell.run("rm -f \(base) \(disk)") }
        let davit = try start("--disk", disk + ",backing=on")
        // It stays while it is open; its contents need not.
        try Shell.run("truncate -s 1M \(base); rm \(base)")
        ask(davit, "dd if=/dev/vda of=/dev/null bs=64k skip=512 count=1 2>&1 | tr I i", "input/output error")
        ask(davit, "dd if=/dev/zero of=/dev/vda bs=64k seek=512 count=1 conv=fsync && echo wrote $((1 + 1))", "wrote 2")
        end(davit, line: "disk0: the guest gets an I/O error: the file has become shorter")
        let again = DavitProcess([
            "run", "--engine", "soft", "--kernel", LinuxGuest.kernel61, "--disk", disk + ",backing=on",
        ])
        #expect(again.waitForExit(seconds: 20) == 66)
        #expect(
            again.text.hasPrefix("davit: --disk \(base): ") && again.text.split(whereSeparator: \.isNewline).count == 1)
    }

    @Test func aPasstThatDies() throws {
        let davit = try start("--network", "user")
        ask(davit, "ip link set eth0 up; sleep 1; echo carrier $(cat /sys/class/net/eth0/carrier)", "carrier 1")
        try Shell.run("pkill -KILL -P \(davit.number) passt")
        #expect(davit.waitFor("net0: passt has ended: the guest's network is down", seconds: 30))
        ask(davit, "sleep 1; echo carrier $(cat /sys/class/net/eth0/carrier)", "carrier 0")
        end(davit, line: "net0: passt has ended: the guest's network is down")
    }
}
