import Glibc

/// Debian's kernels and the initramfs that `scripts/setup` has fetched and made.
enum LinuxGuest {
    static let prompt = "guest# "

    private static var cache: String {
        let home = getenv("HOME").map { String(cString: $0) } ?? "/root"
        return (getenv("XDG_CACHE_HOME").map { String(cString: $0) } ?? home + "/.cache") + "/davit"
    }

    static var initramfs: String { ".build/guest/initramfs.cpio" }
    static var kernel61: String { cache + "/linux-6.1/vmlinuz" }
    static var vmlinux61: String { cache + "/linux-6.1/vmlinux" }
    static var kernel612: String { cache + "/linux-6.12/vmlinuz" }
    static var vmlinux612: String { cache + "/linux-6.12/vmlinux" }
    static var isThere: Bool { access(initramfs, R_OK) == 0 }

    /// davit with a Linux guest that has just been switched on.
    static func start(
        engine: String = "soft", kernel: String = kernel61, commandLine: String = "console=ttyS0 quiet",
        streams: DavitProcess.Streams = .pipes, cpus: any CustomStringConvertible = 1, memory: String = "512M",
        _ more: String...
    ) -> DavitProcess {
        DavitProcess(
            [
                "run", "--engine", engine, "--kernel", kernel, "--initrd", initramfs, "--cmdline", commandLine,
                "--memory", memory, "--cpus", "\(cpus)",
            ] + more, streams: streams)
    }
}
