import CDavit
import DavitTesting
import Glibc
import Testing

@testable import FileShares

/// What a guest of good will gets.
@Suite struct FUSEServerTests {
    private let root = FUSEGuest.root

    @Test func filesAreReadAndWritten() throws {
        let guest = try FUSEGuest()
        try guest.onHost("echo hello >greeting; mkdir -p a/b; echo deep >a/b/c")
        let greeting = guest.lookUp("greeting").node
        let opened = guest.open(greeting, O_RDWR)
        #expect(guest.read(greeting, opened.handle).body == Array("hello\n".utf8))
        #expect(guest.write(greeting, opened.handle, "J") == 0)
        try guest.onHost("grep -qx Jello greeting")
        let a = guest.lookUp("a").node
        let c = guest.lookUp("c", in: guest.lookUp("b", in: a).node).node
        #expect(guest.read(c, guest.open(c).handle, at: 2).body == Array("ep\n".utf8))
        let made = guest.create("new", in: a, mode: 0o100666)
        #expect(guest.write(made.node, made.handle, "text") == 0)
        try guest.onHost("test $(stat -c %a a/new) = 666; grep -q text a/new")
    }

    @Test func aFileOpenedForAppendingGrowsWhateverTheOffset() throws {
        let guest = try FUSEGuest()
        let made = guest.create("log", flags: O_WRONLY | O_APPEND)
        #expect(guest.write(made.node, made.handle, "one ", at: 0, flags: O_APPEND) == 0)
        #expect(guest.write(made.node, made.handle, "two", at: 0, flags: O_APPEND) == 0)
        try guest.onHost("test \"$(cat log)\" = 'one two'")
    }

    @Test func namesAreMadeMovedAndRemoved() throws {
        let guest = try FUSEGuest()
        #expect(
            guest.send(FUSE_MKDIR, root, guest.bytes(of: fuse_mkdir_in(mode: 0o1777, umask: 0)) + guest.name("d")).error
                == 0)
        #expect(guest.send(FUSE_SYMLINK, root, guest.name("s") + guest.name("/etc/passwd")).error == 0)
        _ = guest.create("f")
        let link = fuse_link_in(oldnodeid: guest.lookUp("f").node)
        let d = guest.lookUp("d").node
        #expect(guest.send(FUSE_LINK, d, guest.bytes(of: link) + guest.name("g")).error == 0)
        #expect(guest.lookUp("g", in: d).node == guest.lookUp("f").node)
        try guest.onHost("test $(stat -c %a d) = 1777; test $(readlink s) = /etc/passwd; test d/g -ef f")
        #expect(guest.send(FUSE_READLINK, guest.lookUp("s").node).body == Array("/etc/passwd".utf8))
        #expect(guest.rename("f", "g", to: d, flags: 1) == EEXIST)
        #expect(guest.rename("s", "t", to: d) == 0)
        #expect(guest.rename("f", "d", flags: 2) == 0)
        try guest.onHost("test -L f/t; test -f d; test $(ls | wc -l) = 2")
        #expect(guest.send(FUSE_RMDIR, root, guest.name("f")).error == ENOTEMPTY)
        #expect(guest.send(FUSE_UNLINK, root, guest.name("d")).error == 0)
        #expect(guest.lookUp("d").error == ENOENT)
    }

    @Test func directoriesAreListedInPieces() throws {
        let guest = try FUSEGuest()
        try guest.onHost("for n in $(seq 1 500); do echo >file$n; done")
        for opcode in [FUSE_READDIR, FUSE_READDIRPLUS] {
            let handle = guest.open(root, O_RDONLY, FUSE_OPENDIR).handle
            let skipped = opcode == FUSE_READDIRPLUS ? 128 : 0
            var names: Set<String> = []
            var offset: UInt64 = 0
            while true {
                var arguments = fuse_read_in()
                (arguments.fh, arguments.offset, arguments.size) = (handle, offset, 1000)
                let (error, body) = guest.send(opcode, root, guest.bytes(of: arguments))
                #expect(error == 0 && body.count <= 1000)
                var place = 0
                while place < body.count {
                    let length = Int(guest.value(body, UInt32.self, at: place + skipped + 16))
                    let start = place + skipped + 24
                    let name = String(decoding: body[start..<start + length], as: UTF8.self)
                    #expect(names.insert(name).inserted)
                    let node = guest.value(body, UInt64.self, at: place)
                    if skipped > 0 { #expect((node == 0) == name.hasPrefix(".")) }
                    offset = guest.value(body, UInt64.self, at: place + skipped + 8)
                    place += (skipped + 24 + length + 7) & ~7
                }
                if body.isEmpty { break }
            }
            #expect(names.count == 502)
            // Back to the start.
            var arguments = fuse_read_in()
            (arguments.fh, arguments.size) = (handle, 1000)
            #expect(!guest.send(opcode, root, guest.bytes(of: arguments)).body.isEmpty)
        }
        #expect(guest.server.inodes.count == 500)
    }

    @Test func attributesAreSet() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f")
        #expect(guest.write(made.node, made.handle, "0123456789") == 0)
        var arguments = fuse_setattr_in()
        arguments.valid = UInt32(FATTR_MODE | FATTR_SIZE | FATTR_MTIME)
        (arguments.mode, arguments.size, arguments.mtime) = (0o100640, 4, 1_000_000_000)
        let (error, body) = guest.send(FUSE_SETATTR, made.node, guest.bytes(of: arguments))
        let reply = guest.value(body, fuse_attr_out.self).attr
        #expect(error == 0 && reply.mode == 0o100640 && reply.size == 4 && reply.mtime == 1_000_000_000)
        try guest.onHost("test \"$(stat -c '%a %s %Y' f)\" = '640 4 1000000000'")
    }

    @Test func extendedAttributesOfUsersAreKept() throws {
        let guest = try FUSEGuest()
        let node = guest.create("f").node
        func set(_ name: String, _ value: String) -> Int32 {
            guest.send(
                FUSE_SETXATTR, node,
                guest.bytes(of: UInt32(value.utf8.count)) + guest.bytes(of: UInt32(0)) + guest.name(name)
                    + Array(value.utf8)
            ).error
        }
        func ask(_ opcode: fuse_opcode, _ size: UInt32, _ name: [UInt8] = []) -> (error: Int32, body: [UInt8]) {
            guest.send(opcode, node, guest.bytes(of: fuse_getxattr_in(size: size, padding: 0)) + name)
        }
        #expect(set("user.colour", "green") == 0)
        #expect(ask(FUSE_GETXATTR, 100, guest.name("user.colour")).body == Array("green".utf8))
        #expect(guest.value(ask(FUSE_GETXATTR, 0, guest.name("user.colour")).body, UInt32.self) == 5)
        #expect(ask(FUSE_GETXATTR, 3, guest.name("user.colour")).error == ERANGE)
        #expect(ask(FUSE_LISTXATTR, 100).body == guest.name("user.colour"))
        for name in ["security.capability", "trusted.overlay.opaque", "system.posix_acl_access", "colour"] {
            #expect(set(name, "x") == EOPNOTSUPP)
        }
        #expect(guest.send(FUSE_REMOVEXATTR, node, guest.name("user.colour")).error == 0)
        #expect(ask(FUSE_LISTXATTR, 100).body == [])
    }

    @Test func whatIsRemovedWhileItIsOpenStaysWhatItIs() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f")
        try guest.onHost("rm f")
        #expect(guest.write(made.node, made.handle, "still") == 0)
        #expect(guest.read(made.node, made.handle).body == Array("still".utf8))
        let attributes = guest.value(
            guest.send(FUSE_GETATTR, made.node, guest.bytes(of: fuse_getattr_in())).body, fuse_attr_out.self)
        #expect(attributes.attr.nlink == 0 && attributes.attr.size == 5)
    }

    @Test func whatTheGuestForgetsIsLetGo() throws {
        let guest = try FUSEGuest()
        try guest.onHost("touch f")
        let node = guest.lookUp("f").node
        #expect(guest.lookUp("f").node == node)
        func forget(_ count: UInt64) -> Int32 {
            guest.send(FUSE_FORGET, node, guest.bytes(of: fuse_forget_in(nlookup: count)), room: -16).error
        }
        #expect(forget(1) == FUSEGuest.silence)
        #expect(guest.open(node).error == 0)
        #expect(forget(1) == FUSEGuest.silence)
        #expect(guest.open(node).error == ESTALE)
        #expect(guest.server.inodes.count == 0)
    }

    @Test func pagesAreKeptWhileTheFileIsAsItWas() throws {
        let guest = try FUSEGuest()
        try guest.onHost("echo one >f")
        let node = guest.lookUp("f").node
        func keeps() -> Bool {
            let body = guest.send(FUSE_OPEN, node, guest.bytes(of: fuse_open_in())).body
            return guest.value(body, fuse_open_out.self).open_flags & UInt32(FOPEN_KEEP_CACHE) != 0
        }
        #expect(!keeps() && keeps() && keeps())
        try guest.onHost("echo other >f")
        #expect(!keeps() && keeps())
    }

    @Test func aShareThatVanishesGivesErrors() throws {
        let guest = try FUSEGuest()
        let made = guest.create("f")
        try Tool.run(["rm", "-r", guest.directory["share"]])
        #expect(guest.lookUp("f").error == ENOENT)
        #expect(guest.create("g").error == ENOENT)
        #expect(guest.write(made.node, made.handle, "still") == 0)
        #expect(guest.send(FUSE_GETATTR, root, guest.bytes(of: fuse_getattr_in())).error == 0)
    }
}
