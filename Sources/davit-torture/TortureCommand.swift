import ArgumentParser
import BlockFormats
@preconcurrency import Glibc
import HostLinux
import MachineModel

@main
struct TortureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "davit-torture",
        abstract: "Kill a process that writes to a qcow2 image, again and again, and look at what it leaves.",
        subcommands: [Kill.self, Bench.self, Write.self], defaultSubcommand: Kill.self)
}

private let diskSize = 64 << 20

/// The process that is killed.
struct Write: ParsableCommand {
    static let configuration = CommandConfiguration(shouldDisplay: false)
    @Argument var image: String
    @Argument var log: String
    @Argument var seed: UInt64
    @Argument var cache: String

    func run() throws {
        var options = DiskOptions()
        options.format = .qcow2
        options.followsBackingFiles = true
        options.cache = CacheMode(rawValue: cache) ?? .writeback
        let disk = try Disk.open(image, options)
        let log = try TortureLog(path: log, blocks: diskSize / TortureLog.blockSize)
        try DiskWriter(disk: disk, log: log).run(seed: seed)
    }
}

struct Kill: ParsableCommand {
    @Option(help: "How often to kill.")
    var rounds = 200
    @Option(help: "Start of the random sequence.")
    var seed = UInt64.random(in: 0..<1 << 32)
    @Option(help: "At most so many milliseconds until it is killed.")
    var milliseconds = 400

    /// What `qemu-img create -o` is told, and the cache mode.
    private static let kinds = [
        ("compat=1.1", "writeback"), ("cluster_size=4096", "writeback"), ("compat=0.10", "writeback"),
        ("extended_l2=on", "writeback"), ("compat=1.1", "none"), ("cluster_size=512,refcount_bits=64", "writeback"),
        ("lazy_refcounts=on", "writeback"), ("compat=1.1", "unsafe"),
    ]

    func run() throws {
        setvbuf(stdout, nil, _IOLBF, 0)
        print("seed \(seed)")
        var template = Array("/tmp/davit-torture-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SystemError("mkdtemp") }
        let directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        var random = RandomNumbers(state: seed)
        var leaks = 0
        var flushedBlocks = 0
        for (number, kind) in Self.kinds.enumerated() {
            let image = "\(directory)/\(number).qcow2"
            let log = "\(directory)/\(number).log"
            try tool(["qemu-img", "create", "-q", "-f", "qcow2", "-o", kind.0, image, "\(diskSize)"])
            let share = rounds * (number + 1) / Self.kinds.count - rounds * number / Self.kinds.count
            for _ in 0..<share {
                let delay = UInt32.random(in: 5...UInt32(max(milliseconds, 6)), using: &random)
                try killOnce(image, log, cache: kind.1, after: delay, seed: random.next())
                if try isLeaking(image) { leaks += 1 }
                flushedBlocks += try checkContents(image, log, raw: "\(directory)/copy.raw")
            }
            // Whoever opens it next sees to what was left over; version 2 cannot say that something was.
            var options = DiskOptions()
            options.format = .qcow2
            try Disk.open(image, options).close()
            if try isLeaking(image) && kind.0 != "compat=0.10" {
                throw ValidationError("\(image) keeps clusters that nobody uses")
            }
        }
        try tool(["rm", "-rf", directory])
        print(
            "killed \(rounds) times: no image corrupt, all that was flushed is there (\(flushedBlocks) blocks looked at); ",
            terminator: "")
        print("\(leaks) times clusters were left over")
    }

    private func killOnce(_ image: String, _ log: String, cache: String, after delay: UInt32, seed: UInt64) throws {
        let process = try ChildProcess([CommandLine.arguments[0], "write", image, log, "\(seed)", cache]).start()
        usleep(delay * 1000)
        kill(process, SIGKILL)
        let status = ChildProcess.waitForEnd(of: process)
        guard status == 128 + SIGKILL else { throw ValidationError("the writer ended by itself: status \(status)") }
    }

    /// Throws if the image is corrupt; returns whether it has clusters that nobody uses.
    private func isLeaking(_ image: String) throws -> Bool {
        var status: Int32 = 1
        // The killed process has its lock until the kernel has ended its last transfer.
        for _ in 0..<100 where status == 1 {
            status = try ChildProcess.waitForEnd(
                of: ChildProcess(["qemu-img", "check", "-q", "-f", "qcow2", image]).start())
            if status == 1 { usleep(50_000) }
        }
        guard status == 0 || status == 3 else {
            throw ValidationError("\(image) is corrupt: qemu-img check says \(status)")
        }
        return status == 3
    }

    /// Returns how many blocks had to be there.
    private func checkContents(_ image: String, _ log: String, raw: String) throws -> Int {
        try tool(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw])
        let log = try TortureLog(path: log, blocks: diskSize / TortureLog.blockSize)
        let descriptor = open(raw, O_RDONLY)
        guard descriptor >= 0 else { throw SystemError("open") }
        defer { close(descriptor) }
        var block = [UInt8](repeating: 0, count: TortureLog.blockSize)
        var flushed = 0
        for number in 0..<log.blocks {
            guard pread(descriptor, &block, block.count, off_t(number * block.count)) == block.count else {
                throw SystemError("pread")
            }
            if let objection = block.withUnsafeBytes({ log.objection(number, $0) }) {
                throw ValidationError("\(image): \(objection)")
            }
            if log[number].flushed > 0 { flushed += 1 }
            // What was not flushed may be there or not.
            log[number].done = log[number].flushed
        }
        return flushed
    }

    private func tool(_ words: [String]) throws {
        let status = try ChildProcess.waitForEnd(of: ChildProcess(words).start())
        guard status == 0 else { throw ValidationError("\(words.joined(separator: " ")): status \(status)") }
    }
}
