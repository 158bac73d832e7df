import Glibc
import Testing

/// What users get wrong: one line, and a status that tells the classes of mistakes apart.
@Suite(.enabled(if: DavitProcess.isBuilt, "make build"), .timeLimit(.minutes(1))) struct BadInputTests {
    /// Runs davit; its status and its whole output without the last line feed.
    private func run(_ arguments: String...) -> (status: Int32, text: String) {
        let davit = DavitProcess(arguments)
        let status = davit.waitForExit(seconds: 20)
        return (status, String(davit.text.dropLast()))
    }

    @Test(
        arguments: [
            (
                ["run"], 64,
                "davit: --kernel is missing: give the path of the kernel to boot, or --disk with a system that has one; "
                    + "see 'davit help run'"
            ),
            (
                ["run", "--disk", "a", "--initrd", "x"], 64,
                "davit: --initrd goes with --kernel: give that too, or neither to boot what is on the first disk; "
                    + "see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--kernel", "b"], 64,
                "davit: --kernel is given 2 times: leave one; see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--cmdline", "x", "--append", "y"], 64,
                "davit: --cmdline (or --append) is given 2 times: leave one; see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--initrd", "x", "--initramfs", "y"], 64,
                "davit: --initrd (or --initramfs) is given 2 times: leave one; see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--initrd", "x", "--module", "y"], 64,
                "davit: --initrd and --module clash: Linux takes the first, Multiboot kernels the second; leave one; "
                    + "see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--frobnicate"], 64,
                "davit: Unknown option '--frobnicate'; see 'davit help run'"
            ),
            (["frobnicate"], 64, "davit: Unexpected argument 'frobnicate'; see 'davit help run'"),
            (["run", "--kernel"], 64, "davit: Missing value for '--kernel <kernel>'; see 'davit help run'"),
            (
                ["run", "--kernel", "a", "--trace", "everything"], 64,
                "davit: --trace 'everything' is not known: choose from exceptions, instructions, interrupts, io; "
                    + "see 'davit help run'"
            ),
            (
                ["run", "--kernel", "a", "--memory", "0"], 78,
                "davit: --memory 0 bytes is too little; give 4 MiB or more, for instance 512M"
            ),
            (
                ["run", "--kernel", "a", "--memory", "1"], 78,
                "davit: --memory 1 MiB is too little; give 4 MiB or more, for instance 512M"
            ),
            (
                ["run", "--kernel", "a", "-m", "much"], 78,
                "davit: --memory 'much' is not a size; give a number of MiB, or one with K, M, G or T, such as 512M"
            ),
            (
                ["run", "--kernel", "a", "--memory", "64M,hugepages=some"], 78,
                "davit: --memory ram: hugepages='some' cannot be; give on or off"
            ),
            (
                ["run", "--kernel", "a", "--memory", "64M,speed=high"], 78,
                "davit: --memory ram has no setting 'speed'; choose from: hugepages, shared, mergeable"
            ),
            (
                ["run", "--kernel", "a", "--cpus", "2,affinity=1-"], 78,
                "davit: --cpus vcpus: affinity='1-' cannot be; give numbers and ranges, such as 0-3 or 0+2"
            ),
            (["run", "--kernel", "a", "--cpu", "486"], 78, "davit: --cpu '486' is not known; give host or baseline"),
            (["run", "--kernel", "a", "--cpus", "0"], 78, "davit: --cpus 0 is out of range; give 1 to 64"),
            (["run", "--kernel", "a", "-c", "1000"], 78, "davit: --cpus 1000 is out of range; give 1 to 64"),
            (["run", "--kernel", "a", "-c", "two"], 78, "davit: --cpus 'two' is not a number; give 1 to 64"),
            (
                ["run", "--kernel", "a", "--engine", "quantum"], 78,
                "davit: --engine 'quantum' is not known; choose from: auto, kvm, soft"
            ),
            (
                ["run", "--kernel", "a", "--gdb", "host:1234"], 78,
                "davit: --gdb 'host:1234' is no address; write PORT, IP:PORT or unix:PATH, for instance 127.0.0.1:1234"
            ),
            (
                ["run", "--kernel", "a", "--gdb", "1234,wait=never"], 78,
                "davit: --gdb: wait=never is neither on nor off"
            ),
            (
                ["run", "--kernel", "a", "--gdb", "1234,color=red"], 78,
                "davit: --gdb has no setting 'color'; it has wait=on|off"
            ),
            (
                ["run", "--kernel", "a", "--console", "stdio", "--serial", "stdio"], 78,
                "davit: --console stdio clashes with another port on standard input and output, which serve one port"
            ),
            (
                ["run", "--kernel", "a", "--console", "none,name=a/b"], 78,
                "davit: --console: name='a/b' cannot be; give at most 64 bytes without a slash"
            ),
            (
                ["run", "--kernel", "a", "--console", "none,name=a", "--console", "none,name=a"], 78,
                "davit: --console: name='a' is given twice; choose another one"
            ),
            (
                ["run", "--kernel", "a", "--console", "socket"], 78,
                "davit: --console socket does not say where it is; write socket,path=..."
            ),
            (
                ["run", "--kernel", "a", "--device", "debug-exit,port=door"], 78,
                "davit: --device debug-exit: port='door' cannot be; give a number from 0 to 0xfffc"
            ),
        ] as [([String], Int32, String)])
    func flags(arguments: [String], status: Int32, message: String) {
        let davit = DavitProcess(arguments)
        #expect(davit.waitForExit(seconds: 20) == status)
        #expect(davit.text == message + "\n")
    }

    @Test func moreMemoryThanTheHostHas() {
        let (status, text) = run("run", "--kernel", "a", "--memory", "4T")
        #expect(status == 78)
        #expect(text.hasPrefix("davit: --memory 4 TiB is more than this host has; give at most "))
    }

    /// A host that has less and less memory to give, wherever that is noticed: one line, or a guest that runs.
    @Test func hostOutOfMemory() {
        // mov al, 0x10; out 0xf4, al
        let kernel = HandMadeKernel(code: [0xB0, 0x10, 0xE6, 0xF4, 0xF4])
        let arguments = ["run", "--engine", "soft", "--kernel", kernel.path, "--memory", "64", "--cpus", "2"]
        var refusals: Set<String> = []
        var runs = 0
        for addressSpace in stride(from: 50_000, through: 1_250_000, by: 25_000) {
            let davit = DavitProcess(arguments + ["--device", "debug-exit"], addressSpace: addressSpace)
            let status = davit.waitForExit(seconds: 20)
            if status == 0x21 {
                runs += 1
                #expect(davit.text == "")
            } else {
                #expect(status == 71, "with \(addressSpace) KiB")
                let lines = davit.text.split(separator: "\n")
                #expect(lines.count == 1 && davit.text.hasPrefix("davit: "), "with \(addressSpace) KiB: \(davit.text)")
                refusals.insert(davit.text)
            }
        }
        #expect(runs > 0 && refusals.count > 1, "\(runs) runs, refusals: \(refusals)")
    }

    @Test func helpIsNoMistake() {
        let (status, text) = run("help", "run")
        #expect(status == 0)
        #expect(text.contains("debug-exit"))
        #expect(text.contains("--no-reboot"))
    }

    @Test(arguments: ["/nonexistent/vmlinuz", "/tmp", "/dev/null"])
    func filesThatCannotBeRead(path: String) {
        let (status, text) = run("run", "--kernel", path)
        #expect(status == 66)
        #expect(text.hasPrefix("davit: --kernel \(path): "))
        #expect(!text.contains("\n"))
    }

    @Test func fileThatIsEmpty() {
        let empty = HandMadeKernel(file: [])
        let (status, text) = run("run", "--kernel", empty.path)
        #expect(status == 66)
        #expect(text == "davit: --kernel \(empty.path): is empty: fetch or build the file again")
    }

    @Test func filesThatAreNoKernel() {
        let files: [[UInt8]] = [
            Array("not a kernel at all\n".utf8), [0x7F, 0x45, 0x4C, 0x46], [UInt8](repeating: 0xFF, count: 100_000),
        ]
        for file in files.map(HandMadeKernel.init(file:)) {
            let (status, text) = run("run", "--kernel", file.path)
            #expect(status == 65)
            #expect(text.hasPrefix("davit: --kernel \(file.path): "))
            #expect(!text.contains("\n"))
        }
        #expect(run("run", "--kernel", "/bin/ls").status == 65)
    }

    @Test func disksWithNothingToBoot() {
        let disk = HandMadeKernel(file: [UInt8](repeating: 0, count: 1 << 20))
        let (status, text) = run("run", "--disk", "\(disk.path),format=raw")
        #expect(status == 65)
        #expect(
            text
                == "davit: --disk \(disk.path): nothing to boot: it has no ext4 file system (no partition table either): "
                + "give a kernel with --kernel")
    }

    @Test func initrdThatIsMissingOrTooLarge() {
        let kernel = HandMadeKernel(code: [0xF4])
        let (status, text) = run("run", "--kernel", kernel.path, "--module", "/nonexistent/module")
        #expect(status == 66)
        #expect(text.hasPrefix("davit: --module /nonexistent/module: "))
        let large = HandMadeKernel(file: [UInt8](repeating: 0, count: 20 << 20))
        let (tooLarge, why) = run("run", "--kernel", kernel.path, "--module", large.path, "--memory", "16")
        #expect(tooLarge == 65)
        #expect(why.hasPrefix("davit: --module \(large.path): "))
    }

    @Test func logThatCannotBeWritten() {
        let (status, text) = run("run", "--kernel", "a", "--log", "/nonexistent/log")
        #expect(status == 66)
        #expect(text.hasPrefix("davit: --log /nonexistent/log: cannot write to it (No such file or directory); "))
    }

    @Test func doctorSaysWhatAutoTakes() {
        let (status, text) = run("doctor")
        #expect(status == 0)
        #expect(text.contains("KVM: ") && text.contains("--engine auto takes: "))
    }

    @Test(.enabled(if: !TestEngine.hasKVM)) func missingKVMIsOneLineWithTheMend() {
        let (status, text) = run("run", "--engine", "kvm", "--kernel", HandMadeKernel(code: [0xF4]).path)
        #expect(status == 69)
        #expect(text.hasPrefix("davit: --engine kvm: ") && text.hasSuffix("use --engine soft"))
    }
}
