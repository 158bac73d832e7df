import DavitTesting
import Glibc
import Testing

/// A guest with a directory of the host's, as a user gives it one.
@Suite(
    .serialized, .enabled(if: DavitProcess.isBuilt && LinuxGuest.isThere, "make build setup"), .timeLimit(.minutes(15)))
struct SharedFolderTests {
    private let patience = 120
    private let folder: TemporaryDirectory

    init() throws {
        folder = try TemporaryDirectory()
        try onHost("mkdir share; echo from the host >share/greeting; echo secret >secret")
    }

    private func onHost(_ commands: String) throws { try Shell.run("set -e; cd \(folder.path); \(commands)") }

    private func start(kernel: String = LinuxGuest.kernel61, _ volume: String) throws -> DavitProcess {
        let davit = LinuxGuest.start(kernel: kernel, "--volume", volume)
        try #require(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        return davit
    }

    /// Types a command whose last words are the guest's answer, and waits for it.
    private func ask(_ davit: DavitProcess, _ command: String, _ answer: String) {
        davit.type(command + "\n")
        #expect(davit.waitFor(answer, seconds: patience), "\(command): \(davit.text.suffix(1000))")
    }

    private func end(_ davit: DavitProcess) {
        davit.type("poweroff -f\n")
        #expect(davit.waitForExit(seconds: 60) == 0)
    }

    @Test(arguments: [LinuxGuest.kernel61, LinuxGuest.kernel612])
    func whatTheGuestDoesIsSeenOnTheHost(kernel: String) throws {
        let davit = try start(kernel: kernel, folder["share"] + ":/srv/site")
        ask(davit, "cd /srv/site && cat greeting", "from the host")
        ask(davit, "dd if=/dev/urandom of=noise bs=64k count=64 2>/dev/null; md5sum noise >sum; echo w$((1 + 1))", "w2")
        ask(
            davit,
            "mkdir d; echo one >d/f; ln d/f d/hard; ln -s f d/soft; mv d/f d/g; chmod 4751 d/g; echo m$((1 + 1))", "m2")
        ask(
            davit,
            "echo two >>d/g; truncate -s 6 d/hard; mkfifo p; touch -d @1000000000 d; rm greeting; echo n$((1 + 1))",
            "n2")
        ask(davit, "mknod null c 1 3 2>&1 | tr O o", "operation not permitted")
        try onHost("cd share; md5sum -c --status sum; test -p p; test ! -e null; test ! -e greeting")
        try onHost(
            "cd share/d; test \"$(cat g)\" = \"$(printf 'one\\ntw')\"; test g -ef hard; test $(readlink soft) = f")
        try onHost("cd share; test $(stat -c %a d/g) = 751; test $(stat -c %Y d) = 1000000000")
        // What the host does is seen after a second at most.
        try onHost("echo again >share/greeting; rm -r share/d")
        ask(davit, "sleep 2; cat greeting; ls", "again")
        ask(davit, "ls d 2>&1 | tr N n", "no such file")
        // A program in the guest maps a file of the host's and runs it.
        ask(davit, "cp /bin/busybox . && ./busybox echo r$((1 + 1))", "r2")
        // The way up ends at the guest's own root.
        ask(davit, "cat ../../../secret 2>&1 | tr N n", "no such file")
        ask(davit, "ln -s ../secret up; cat up 2>&1 | tr N n", "no such file")
        end(davit)
    }

    @Test func aReadOnlyFolderIsNotWritten() throws {
        // The guest may ask as it likes.
        let davit = try start(folder["share"] + ":tag:ro")
        ask(davit, "mkdir /s && mount -t virtiofs -o rw tag /s && cat /s/greeting", "from the host")
        for command in ["echo x >/s/greeting", "touch /s/new", "mkdir /s/d", "rm /s/greeting", "chmod 600 /s/greeting"]
        {
            ask(davit, "sh -c '\(command)' 2>&1 | tr R r", "read-only file system")
        }
        end(davit)
        try onHost("test \"$(ls share)\" = greeting; grep -qx 'from the host' share/greeting")
    }

    @Test func aFolderThatVanishesGivesErrors() throws {
        let davit = try start(folder["share"] + ":/srv/site")
        ask(davit, "cd /srv/site; exec 5>>open; echo o$((1 + 1))", "o2")
        try onHost("rm -r share")
        ask(davit, "sleep 2; cat greeting 2>&1 | tr N n", "no such file")
        ask(davit, "touch new 2>&1 | tr N n", "no such file")
        ask(davit, "echo x >&5; echo still $((40 + 2))", "still 42")
        end(davit)
    }

    @Test func aFolderOutlivesAReboot() throws {
        let davit = try start(folder["share"] + ":/srv/site")
        ask(davit, "echo one >/srv/site/f; echo o$((1 + 1))", "o2")
        davit.type("reboot -f\n")
        #expect(davit.waitFor("Restarting system", seconds: patience))
        #expect(davit.waitFor(LinuxGuest.prompt, seconds: patience))
        ask(davit, "cat /srv/site/f; echo t$((1 + 1))", "one\r\nt2")
        end(davit)
    }

    @Test(
        arguments: [
            ("/nonexistent:/srv", 66, "--volume /nonexistent: open: No such file or directory"),
            ("/etc/passwd:/srv", 66, "--volume /etc/passwd: open: Not a directory"),
            ("/tmp", 78, "--volume '/tmp' is not a folder; write HOST:GUEST"),
            ("/tmp:/srv:rx", 78, "--volume '/tmp:/srv:rx': 'rx' is not known; choose from ro, rw, setuid"),
            ("/tmp:/srv/../etc", 78, "--volume /tmp: '/srv/../etc' is no place to mount"),
            ("/tmp:/srv/a b", 78, "--volume /tmp: '/srv/a b' has characters that cannot be told to the guest"),
        ] as [(String, Int32, String)])
    func mistakesAreSaidSo(volume: String, status: Int32, line: String) {
        let davit = LinuxGuest.start("--volume", volume)
        #expect(davit.waitForExit(seconds: 20) == status)
        #expect(davit.text.hasPrefix("davit: " + line) && davit.text.filter { $0 == "\n" }.count == 1, "\(davit.text)")
    }
}
