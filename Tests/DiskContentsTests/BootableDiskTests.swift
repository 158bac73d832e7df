import Testing

@testable import DiskContents

@Suite struct BootableDiskTests {
    private func find(_ bytes: [UInt8]) throws -> BootableDisk {
        try BootableDisk(Volume.disk(bytes), device: "/dev/vda", initrdLimit: 1 << 20)
    }

    @Test func theNewestKernelOfAWholeDisk() throws {
        let volume = try Volume([
            "boot/vmlinuz-6.1.0-9-amd64": "old", "boot/initrd.img-6.1.0-9-amd64": "old",
            "boot/vmlinuz-6.1.0-56-amd64": "new", "boot/initrd.img-6.1.0-56-amd64": "its initrd",
            "boot/config-6.2.0-1-amd64": "", "sbin/init": "",
        ])
        let found = try find(try volume.image())
        #expect(found.place == "/dev/vda:/boot/vmlinuz-6.1.0-56-amd64")
        #expect(found.kernel == Array("new".utf8) && found.initrd == Array("its initrd".utf8))
        #expect(found.commandLine == "root=/dev/vda ro")
    }

    @Test func grubsFirstEntry() throws {
        let volume = try Volume([
            "boot/vmlinuz-1": "one", "boot/vmlinuz-2": "two", "boot/initrd.img-1": "initrd",
            "boot/grub/grub.cfg": """
            set default="0"
            menuentry 'Debian GNU/Linux' --class debian {
            \tlinux\t/boot/vmlinuz-1 root=UUID=1-2 ro  quiet $extra_arguments
            \tinitrd\t/boot/initrd.img-1
            }
            menuentry 'Other' {
            \tlinux /boot/vmlinuz-2 root=/dev/sdb
            }
            """,
        ])
        let found = try find(try volume.image())
        #expect(found.kernel == Array("one".utf8) && found.initrd == Array("initrd".utf8))
        #expect(found.commandLine == "root=UUID=1-2 ro quiet")
    }

    @Test func aBootLoadersEntriesAndExtlinux() throws {
        let entries = try Volume([
            "loader/entries/a-6.9.conf": "title A\nversion 6.9\nlinux /vmlinuz-6.9\noptions root=/dev/vda2\n",
            "loader/entries/b-6.10.conf":
                "# new\nversion 6.10\nlinux /vmlinuz-6.10\ninitrd /one\ninitrd /two\noptions root=/dev/vda2 rw\n",
            "vmlinuz-6.9": "old", "vmlinuz-6.10": "new", "one": "1", "two": "2",
        ])
        let newest = try find(try entries.image())
        #expect(newest.kernel == Array("new".utf8) && newest.initrd == Array("12".utf8))
        #expect(newest.commandLine == "root=/dev/vda2 rw")

        let extlinux = try Volume([
            "boot/extlinux/extlinux.conf":
                "DEFAULT second\nLABEL first\n KERNEL x\nLABEL second\n LINUX ../vmlinuz\n INITRD /boot/initrd\n APPEND root=/dev/vda ro\n",
            "boot/vmlinuz": "kernel", "boot/initrd": "initrd",
        ])
        let chosen = try find(try extlinux.image())
        #expect(chosen.kernel == Array("kernel".utf8) && chosen.initrd == Array("initrd".utf8))
        #expect(chosen.place == "/dev/vda:/boot/extlinux/../vmlinuz")
    }

    /// /boot on a partition of its own: the root is where the init is.
    @Test(arguments: [false, true]) func partitions(isGUIDTable: Bool) throws {
        let boot = try Volume(["vmlinuz-6.1": "kernel", "initrd.img-6.1": "initrd"])
        let root = try Volume(["sbin/init": "", "etc/fstab": ""])
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        bytes += try boot.image(size: "2M")
        bytes += try root.image(size: "4M")
        if isGUIDTable {
            bytes.putPartitions([(0xEE, 1, 0xFFFF_FFFF)])
            bytes.replaceSubrange(512..<520, with: "EFI PART".utf8)
            bytes.put(UInt64(2), at: 512 + 72)
            bytes.put(UInt32(128), at: 512 + 80)
            bytes.put(UInt32(128), at: 512 + 84)
            // The second line is empty.
            for (index, first, last) in [(0, 2048, 6143), (2, 6144, 14335)] {
                bytes[1024 + index * 128] = 1
                bytes.put(UInt64(first), at: 1024 + index * 128 + 32)
                bytes.put(UInt64(last), at: 1024 + index * 128 + 40)
            }
        } else {
            // A logical partition in an extended one.
            bytes.putPartitions([(0x83, 2048, 4096), (0x05, 2000, 20000)])
            bytes.putPartitions([(0x83, 4144, 8192)], at: 2000 * 512)
        }
        let found = try find(bytes)
        #expect(found.place == "/dev/vda1:/vmlinuz-6.1")
        #expect(found.initrd == Array("initrd".utf8))
        #expect(found.commandLine == "root=/dev/vda\(isGUIDTable ? 3 : 5) ro")
    }

    @Test func whatCannotBeBootedIsSaid() throws {
        #expect(throws: DiskContentsError.noFileSystem("no partition table either")) {
            try find([UInt8](repeating: 0, count: 65536))
        }
        var windows = [UInt8](repeating: 0, count: 4 << 20)
        windows.putPartitions([(7, 2048, 100), (7, 4096, 100), (7, 0xFFFF_FFFF, 0xFFFF_FFFF)])
        #expect(throws: DiskContentsError.noFileSystem("partitions of other kinds: 3")) { try find(windows) }
        #expect(throws: DiskContentsError.noKernel) { try find(try Volume(["a": "b"]).image()) }
        let incomplete = try Volume(["boot/grub/grub.cfg": "linux /k\ninitrd /i\n", "k": "kernel"])
        #expect(throws: DiskContentsError.notFound("/i")) { try find(try incomplete.image()) }
        let disk = Volume.disk([UInt8](repeating: 0, count: 65536))
        disk.failure = .truncated
        #expect(throws: DiskContentsError.unreadable("the file has become shorter")) {
            try BootableDisk(disk, device: "/dev/vda", initrdLimit: 1)
        }
    }

    /// 12: tables that lead to themselves or beyond the disk.
    @Test func hostilePartitionTables() throws {
        var loop = [UInt8](repeating: 0, count: 1 << 20)
        loop.putPartitions([(0x05, 1, 100)])
        loop.putPartitions([(0x83, 1, 1), (0x05, 1, 1)], at: 512)
        loop.putPartitions([(0x83, 1, 1), (0x05, 1, 1)], at: 1024)
        #expect(try PartitionTable(DiskReader(Volume.disk(loop))).partitions.count == 128)
        var wild = [UInt8](repeating: 0, count: 1 << 20)
        wild.putPartitions([(0xEE, 1, 1)])
        wild.replaceSubrange(512..<520, with: "EFI PART".utf8)
        for (place, size) in [(UInt64.max, UInt32(128)), (1 << 55, 128), (2, 0), (2, .max), (2047, 4096)] {
            wild.put(place, at: 512 + 72)
            wild.put(UInt32.max, at: 512 + 80)
            wild.put(size, at: 512 + 84)
            #expect(throws: DiskContentsError.self) { try PartitionTable(DiskReader(Volume.disk(wild))) }
        }
    }

    @Test(
        arguments: [
            ("6.1.0-9-amd64", "6.1.0-56-amd64"), ("6.9", "6.10"), ("6.1-rc3", "6.1"), ("5.10.0", "6.1"),
            ("6.1", "6.1.1"), ("6.12.0~rc1-amd64", "6.12.0-amd64"), ("6.1.0-56-amd64", "6.1.0-56-cloud-amd64"),
        ])
    func newerVersions(older: String, newer: String) {
        #expect(KernelVersion(older) < KernelVersion(newer))
        #expect(!(KernelVersion(newer) < KernelVersion(older)))
    }
}
