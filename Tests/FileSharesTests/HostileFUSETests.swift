import CDavit
import DavitTesting
import Glibc
import Testing

@testable import FileShares

/// Guests that want out of the tree, or the server's end.
@Suite struct HostileFUSETests {
    private let root = FUSEGuest.root

    @Test(arguments: ["..", ".", "", "/", "/etc/passwd", "../secret", "d/f", "d/../../secret", "f/", "/proc/self/root"])
    func namesThatLeadElsewhereAreRefused(name: String) throws {
        let guest = try FUSEGuest()
        try guest.onHost("echo top >../secret; mkdir d; echo f >d/f; echo f >f")
        #expect(guest.lookUp(name).error == EINVAL)
        #expect(guest.create(name).error == EINVAL)
        #expect(
            guest.send(FUSE_MKDIR, root, guest.bytes(of: fuse_mkdir_in(mode: 0o755, umask: 0)) + guest.name(name)).error
                == EINVAL)
        let node = fuse_mknod_in(mode: 0o100644, rdev: 0, umask: 0, padding: 0)
        #expect(guest.send(FUSE_MKNOD, root, guest.bytes(of: node) + guest.name(name)).error == EINVAL)
        #expect(guest.send(FUSE_SYMLINK, root, guest.name(name) + guest.name("x")).error == EINVAL)
        let link = fuse_link_in(oldnodeid: guest.lookUp("f").node)
        #expect(guest.send(FUSE_LINK, root, guest.bytes(of: link) + guest.name(name)).error == EINVAL)
        #expect(guest.send(FUSE_UNLINK, root, guest.name(name)).error == EINVAL)
        #expect(guest.send(FUSE_RMDIR, root, guest.name(name)).error == EINVAL)
        #expect(guest.rename(name, "x") == EINVAL)
        #expect(guest.rename("f", name) == EINVAL)
        try guest.onHost("grep -qx top ../secret; test $(ls | wc -l) = 2; test $(ls .. | wc -l) = 2")
    }

    @Test func symbolicLinksAreNotFollowedOnTheHost() throws {
        let guest = try FUSEGuest()
        try guest.onHost(
            "echo top >../secret; chmod 600 ../secret; ln -s ../secret s; ln -s .. up; ln -s /proc/self/fd p")
        for name in ["s", "up", "p"] {
            let node = guest.lookUp(name).node
            #expect(guest.open(node).error == ENXIO)
            #expect(guest.open(node, O_RDONLY, FUSE_OPENDIR).error == ENOTDIR)
            #expect(guest.lookUp("secret", in: node).error == ENOTDIR)
            #expect(guest.create("x", in: node).error == ENOTDIR)
            #expect(guest.create(name).error == ENXIO)
            var change = fuse_setattr_in()
            (change.valid, change.mode) = (UInt32(FATTR_MODE), 0o777)
            #expect(guest.send(FUSE_SETATTR, node, guest.bytes(of: change)).error == EOPNOTSUPP)
            (change.valid, change.size) = (UInt32(FATTR_SIZE), 0)
            #expect(guest.send(FUSE_SETATTR, node, guest.bytes(of: change)).error == EINVAL)
            let value = guest.bytes(of: UInt32(1)) + guest.bytes(of: UInt32(0)) + guest.name("user.x") + [1]
            #expect(guest.send(FUSE_SETXATTR, node, value).error == EPERM)
            // Its times are its own.
            (change.valid, change.mtime) = (UInt32(FATTR_MTIME), 1)
            #expect(guest.send(FUSE_SETATTR, node, guest.bytes(of: change)).error == 0)
            // A hard link to it is one to the link.
            let link = fuse_link_in(oldnodeid: node)
            #expect(guest.send(FUSE_LINK, root, guest.bytes(of: link) + guest.name(name + "2")).error == 0)
        }
        try guest.onHost(
            "test \"$(stat -c '%a %s' ../secret)\" = '600 4'; test $(stat -c %Y ../secret) -gt 1; test -L s2; test -L up2"
        )
    }

    /// A name is one thing when it is looked up and another when it is used.
    @Test func namesThatChangeUnderTheServerLeadNowhereElse() throws {
        let guest = try FUSEGuest()
        try guest.onHost("echo top >../secret; echo mine >f; mkdir d; mkdir ../elsewhere; echo top >../elsewhere/f")
        let (f, d) = (guest.lookUp("f").node, guest.lookUp("d").node)
        try guest.onHost("rm f; ln -s ../secret f; rmdir d; ln -s ../elsewhere d")
        let opened = guest.open(f, O_RDWR)
        #expect(guest.read(f, opened.handle).body == Array("mine\n".utf8))
        #expect(guest.write(f, opened.handle, "XXXX") == 0)
        #expect(guest.lookUp("f", in: d).error == ENOENT)
        #expect(guest.create("g", in: d).error == ENOENT)
        #expect(guest.create("f", flags: O_WRONLY | O_TRUNC).error == ENXIO)
        try guest.onHost("grep -qx top ../secret; grep -qx top ../elsewhere/f; test $(ls ../elsewhere) = f")
    }

    /// The same while it changes all the time.
    @Test func aRaceBetweenLinkAndFileNeverLeadsOut() throws {
        let guest = try FUSEGuest()
        try guest.onHost(
            "echo top >../secret; echo mine >file; ln -s ../secret link; mkdir ../sub; echo top >../sub/f; mkdir d; echo mine >d/f; ln -s ../sub l"
        )
        let share = guest.directory["share"]
        let racer = """
            cd \(share); i=0
            while [ $i -lt 1500 ]; do ln -f file x; ln -f link x 2>/dev/null || ln -fPn link x; i=$((i+1)); done
            """
        var process = pid_t()
        let command = ["sh", "-c", racer]
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        #expect(posix_spawn(&process, "/bin/sh", nil, nil, &words, environ) == 0)
        var status: Int32 = 0
        var reads = 0
        while waitpid(process, &status, WNOHANG) == 0 {
            let made = guest.create("x", flags: O_RDWR)
            guard made.error == 0 else { continue }
            let text = guest.read(made.node, made.handle).body
            #expect(text == Array("mine\n".utf8) || text.isEmpty)
            reads += 1
            _ = guest.send(
                FUSE_RELEASE, made.node,
                guest.bytes(of: fuse_release_in(fh: made.handle, flags: 0, release_flags: 0, lock_owner: 0)))
        }
        #expect(reads > 0)
        try guest.onHost("grep -qx top ../secret")
    }

    @Test func aDirectoryThatIsMovedOutTakesNobodyFurther() throws {
        let guest = try FUSEGuest()
        try guest.onHost("mkdir d; echo mine >d/f; echo top >../secret")
        let d = guest.lookUp("d").node
        try guest.onHost("mv d ../d")
        #expect(guest.lookUp("..", in: d).error == EINVAL)
        #expect(guest.lookUp("secret", in: d).error == ENOENT)
    }

    @Test func devicesPipesAndSocketsAreNotOpened() throws {
        let guest = try FUSEGuest()
        try guest.onHost("mkfifo pipe; [ $(id -u) != 0 ] || mknod null c 1 3")
        for kind in [S_IFCHR, S_IFBLK] {
            let node = fuse_mknod_in(mode: kind | 0o666, rdev: 0x103, umask: 0, padding: 0)
            #expect(guest.send(FUSE_MKNOD, root, guest.bytes(of: node) + guest.name("device")).error == EPERM)
        }
        for name in ["pipe", "null"] {
            guard guest.lookUp(name).error == 0 else { continue }
            let node = guest.lookUp(name).node
            for flags in [O_RDONLY, O_WRONLY, O_RDWR] { #expect(guest.open(node, flags).error == ENXIO) }
            // Neither by a name that is taken.
            #expect(guest.create(name).error == ENXIO)
        }
        let socket = fuse_mknod_in(mode: S_IFSOCK | 0o600, rdev: 0, umask: 0, padding: 0)
        #expect(guest.send(FUSE_MKNOD, root, guest.bytes(of: socket) + guest.name("socket")).error == 0)
        #expect(guest.open(guest.lookUp("socket").node).error == ENXIO)
        // A whiteout is a device.
        #expect(guest.rename("pipe", "moved", flags: 4) == EINVAL)
    }

    @Test func programsDoNotGetTheirOwnersRightsOnTheHost() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f", mode: 0o106755)
        try guest.onHost("test $(stat -c %a f) = 755")
        var change = fuse_setattr_in()
        (change.valid, change.mode) = (UInt32(FATTR_MODE), 0o106711)
        #expect(guest.send(FUSE_SETATTR, made.node, guest.bytes(of: change)).error == 0)
        try guest.onHost("test $(stat -c %a f) = 711")
        let node = fuse_mknod_in(mode: 0o104755, rdev: 0, umask: 0, padding: 0)
        #expect(guest.send(FUSE_MKNOD, root, guest.bytes(of: node) + guest.name("g")).error == 0)
        try guest.onHost("test $(stat -c %a g) = 755")
        let trusting = try FUSEGuest(keepsSetID: true)
        _ = trusting.create("f", mode: 0o104755)
        try trusting.onHost("test $(stat -c %a f) = 4755")
    }

    @Test func forgedFilesAndHandlesAreErrors() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f")
        for node in [0, made.node + 1, UInt64.max, 1 << 63] {
            #expect(guest.send(FUSE_GETATTR, node, guest.bytes(of: fuse_getattr_in())).error == ESTALE)
            #expect(guest.lookUp("f", in: node).error == ESTALE)
            #expect(guest.open(node).error == ESTALE)
            let link = fuse_link_in(oldnodeid: node)
            #expect(guest.send(FUSE_LINK, root, guest.bytes(of: link) + guest.name("g")).error == ESTALE)
            #expect(guest.rename("f", "g", to: node) == ESTALE)
            _ = guest.send(FUSE_FORGET, node, guest.bytes(of: fuse_forget_in(nlookup: .max)), room: -16)
        }
        let directory = guest.open(root, O_RDONLY, FUSE_OPENDIR).handle
        for handle in [0, directory, made.handle + 100, UInt64.max] {
            #expect(guest.read(made.node, handle).error == EBADF)
            #expect(guest.write(made.node, handle, "x") == EBADF)
            var copy = fuse_copy_file_range_in()
            (copy.fh_in, copy.fh_out, copy.len) = (made.handle, handle, 10)
            #expect(guest.send(FUSE_COPY_FILE_RANGE, made.node, guest.bytes(of: copy)).error == EBADF)
        }
        var list = fuse_read_in()
        (list.fh, list.size) = (made.handle, 4096)
        #expect(guest.send(FUSE_READDIR, root, guest.bytes(of: list)).error == EBADF)
        // A file's handle, and then no more.
        let release = guest.bytes(of: fuse_release_in(fh: made.handle, flags: 0, release_flags: 0, lock_owner: 0))
        #expect(guest.send(FUSE_RELEASE, made.node, release).error == 0)
        #expect(guest.send(FUSE_RELEASE, made.node, release).error == 0)
        #expect(guest.read(made.node, made.handle).error == EBADF)
        // The tree's top is not forgotten.
        _ = guest.send(FUSE_FORGET, root, guest.bytes(of: fuse_forget_in(nlookup: .max)), room: -16)
        #expect(guest.lookUp("f").error == 0)
    }

    @Test func aHandleForReadingIsNotWrittenThrough() throws {
        let guest = try FUSEGuest()
        try guest.onHost("echo hello >f")
        let node = guest.lookUp("f").node
        let handle = guest.open(node).handle
        #expect(guest.write(node, handle, "x") == EBADF)
        let allocate = fuse_fallocate_in(fh: handle, offset: 0, length: 1 << 20, mode: 0, padding: 0)
        #expect(guest.send(FUSE_FALLOCATE, node, guest.bytes(of: allocate)).error == EBADF)
    }

    @Test func requestsOfAnyLengthAreAnswered() throws {
        let guest = try FUSEGuest()
        var made = guest.create("f")
        let opcodes = (0...60).map { fuse_opcode(rawValue: $0) }
        // Without arguments, and with too few.
        for opcode in opcodes where opcode != FUSE_DESTROY && opcode != FUSE_INIT {
            for count in [0, 1, 7, 8, 15, 16, 39, 63] {
                let body = [UInt8](repeating: 0xFF, count: count)
                _ = guest.send(opcode, root, body)
                _ = guest.send(opcode, made.node, body, room: 0)
            }
        }
        // It was forgotten by that.
        made = guest.create("f")
        // It says that it is longer than it is, or shorter than a header.
        for length in [41, 1 << 20, Int(UInt32.max), 0, 39] {
            #expect(guest.send(FUSE_GETATTR, root, length: length).error == EINVAL)
        }
        // Less than a header, and no room for one.
        #expect(guest.sendRaw([]).written == 16)
        #expect(guest.sendRaw([1, 2, 3], room: 15).written == 0)
        #expect(guest.send(FUSE_GETATTR, root, guest.bytes(of: fuse_getattr_in()), room: 8).error == EIO)
        // No zero at a name's end; a name longer than a name; a zero inside.
        #expect(guest.send(FUSE_LOOKUP, root, Array("f".utf8)).error == EINVAL)
        #expect(guest.lookUp(String(repeating: "x", count: 256)).error == ENAMETOOLONG)
        #expect(guest.send(FUSE_LOOKUP, root, [UInt8](repeating: 65, count: 200_000)).error == ENAMETOOLONG)
        #expect(guest.send(FUSE_SYMLINK, root, guest.name("s")).error == EINVAL)
        // More to write, to set or to forget than there is.
        #expect(guest.write(made.node, made.handle, "abc", size: 4) == EINVAL)
        #expect(guest.write(made.node, made.handle, "abc", size: .max) == EINVAL)
        let value = guest.bytes(of: UInt32.max) + guest.bytes(of: UInt32(0)) + guest.name("user.x") + [1]
        #expect(guest.send(FUSE_SETXATTR, made.node, value).error == E2BIG)
        let batch = guest.bytes(of: fuse_batch_forget_in(count: .max, dummy: 0))
        #expect(guest.send(FUSE_BATCH_FORGET, 0, batch, room: -16).error == FUSEGuest.silence)
        #expect(guest.lookUp("f").error == 0)
    }

    @Test func numbersOutOfRangeAreErrors() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f")
        #expect(guest.read(made.node, made.handle, at: .max).error == EINVAL)
        #expect(guest.write(made.node, made.handle, "x", at: 1 << 63) == EINVAL)
        #expect(guest.read(made.node, made.handle, size: .max).error == 0)
        for whence in [0, 1, 2, 5, UInt32.max] {
            let seek = fuse_lseek_in(fh: made.handle, offset: .max, whence: whence, padding: 0)
            #expect(guest.send(FUSE_LSEEK, made.node, guest.bytes(of: seek)).error == EINVAL)
        }
        var change = fuse_setattr_in()
        (change.valid, change.size) = (UInt32(FATTR_SIZE), 1 << 63)
        #expect(guest.send(FUSE_SETATTR, made.node, guest.bytes(of: change)).error == EINVAL)
        (change.valid, change.mtimensec) = (UInt32(FATTR_MTIME), 1 << 30 - 1)
        #expect(guest.send(FUSE_SETATTR, made.node, guest.bytes(of: change)).error == EINVAL)
        let handle = guest.open(root, O_RDONLY, FUSE_OPENDIR).handle
        for offset in [1 << 63, UInt64.max, 12345] {
            var list = fuse_read_in()
            (list.fh, list.offset, list.size) = (handle, offset, .max)
            _ = guest.send(FUSE_READDIRPLUS, root, guest.bytes(of: list))
        }
        #expect(guest.lookUp("f").error == 0)
    }

    @Test func aReadOnlyTreeIsNotChanged() throws {
        let guest = try FUSEGuest(isReadOnly: true)
        try guest.onHost("echo hello >f; mkdir d")
        let node = guest.lookUp("f").node
        #expect(guest.read(node, guest.open(node).handle).body == Array("hello\n".utf8))
        for flags in [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC] { #expect(guest.open(node, flags).error == EROFS) }
        #expect(guest.create("g").error == EROFS)
        for opcode in [
            FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_RENAME2,
            FUSE_LINK, FUSE_WRITE, FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE, FUSE_TMPFILE,
        ] {
            #expect(guest.send(opcode, root, guest.name("f") + [UInt8](repeating: 0, count: 100)).error == EROFS)
        }
        try guest.onHost("test \"$(ls)\" = \"$(printf 'd\\nf')\"; grep -qx hello f")
    }

    /// Requests at random, nearly right: nothing traps, nothing outside the tree changes.
    @Test func anythingIsAnswered() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let guest = try FUSEGuest()
        try guest.onHost("echo top >../secret; mkdir -p a/b; echo f >f; ln -s ../secret s; mkfifo p")
        for name in ["a", "f", "s", "p"] { _ = guest.lookUp(name) }
        for _ in 0..<3000 {
            let names = ["a", "f", "..", "s", "a/b", "p", "new", "../secret"]
            var body = (0..<Int.random(in: 0...70, using: &random)).map { _ in UInt8.random(in: 0...4, using: &random) }
            body += guest.name(names.randomElement(using: &random) ?? "a")
            body += guest.name(names.randomElement(using: &random) ?? "a")
            let opcode = fuse_opcode(rawValue: UInt32.random(in: 1...52, using: &random))
            _ = guest.send(
                opcode, UInt64.random(in: 0...8, using: &random), body, room: Int.random(in: -16...5000, using: &random)
            )
        }
        try guest.onHost("grep -qx top ../secret; test $(ls .. | wc -l) = 2")
        #expect(guest.send(FUSE_GETATTR, root, guest.bytes(of: fuse_getattr_in())).error == 0, "seed \(seed)")
    }
}
