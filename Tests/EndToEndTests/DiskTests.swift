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
}
