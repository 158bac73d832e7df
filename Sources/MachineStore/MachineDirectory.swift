import CDavit
import Glibc

/// A machine's directory.
///
/// | file | what is in it |
/// |---|---|
/// | `config.json` | how the machine was made |
/// | `disk.qcow2` | its disk, which lies over an image, if it was made from one |
/// | `seed.img` | what cloud-init in its guest finds, if the user gave something for it |
/// | `lock` | locked by the process that runs it, and only so is it known to run: a lock cannot outlive its holder |
/// | `run.json` | when its last run began |
/// | `end.json` | how that ended; missing when the process was killed |
/// | `control`, `console`, `vsock` | sockets while it runs; the last leads into the guest of a machine with an image |
/// | `console.log` | what came out of its first serial port; `console.log.1` before that |
/// | `davit.log` | what Davit said of it |
public struct MachineDirectory: Sendable {
    static let configurationFile = "config.json"
    public static let diskFile = "disk.qcow2"
    public static let seedFile = "seed.img"

    public enum Status: Equatable, Sendable {
        case created
        case running
        case ended(EndRecord)
        /// Its process was killed.
        case died
    }

    public let path: String
    public let name: String
    public let configuration: StoredConfiguration

    init(path: String, name: String) throws(StoreError) {
        self.path = path
        self.name = name
        guard let text = SmallFile.read(path + "/" + Self.configurationFile), let json = JSON(parsing: text),
            let configuration = StoredConfiguration(json)
        else {
            throw StoreError(
                "machine '\(name)' has no configuration that this Davit can read; look at '\(path)', or remove that directory"
            )
        }
        self.configuration = configuration
    }

    /// Nil if the user gave nothing for cloud-init.
    public var seedDisk: String? {
        let file = path + "/" + Self.seedFile
        return access(file, F_OK) == 0 ? file : nil
    }

    public var consoleLog: String { path + "/console.log" }
    public var olderConsoleLog: String { path + "/console.log.1" }
    public var log: String { path + "/davit.log" }
    var lockFile: String { path + "/lock" }
    private var runFile: String { path + "/run.json" }
    private var endFile: String { path + "/end.json" }

    public var status: Status {
        if isLocked { return .running }
        if let end { return .ended(end) }
        return access(runFile, F_OK) == 0 ? .died : .created
    }

    /// How its last run ended.
    public var end: EndRecord? {
        guard let text = SmallFile.read(endFile), let json = JSON(parsing: text) else { return nil }
        return EndRecord(json)
    }

    /// When its last run began, in seconds since 1970.
    public var started: Int64? { run?["started"]?.number }

    /// How many times it has begun again by itself since the user started it.
    public var restarts: Int64 { run?["restarts"]?.number ?? 0 }

    private var run: JSON? { SmallFile.read(runFile).flatMap(JSON.init(parsing:)) }

    /// A look that takes no lock, so that it is in nobody's way.
    private var isLocked: Bool {
        let descriptor = open(lockFile, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        return davit_file_is_locked(descriptor) == 1
    }

    /// Takes the machine for this process, until the lock is let go.
    public func lock() throws(StoreError) -> MachineLock {
        let descriptor = open(lockFile, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw errno == ENOENT
                ? StoreError("there is no machine '\(name)' any more") : .host("lock machine '\(name)'")
        }
        let lock = MachineLock(descriptor: descriptor)
        guard davit_file_lock(descriptor, true) == 0 else {
            throw StoreError("machine '\(name)' is running; 'davit stop \(name)' stops it")
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_nlink > 0 else {
            throw StoreError("there is no machine '\(name)' any more")
        }
        return lock
    }

    /// Begins a run: to be called with the lock held.
    public func recordStart(time: Int64, restarts: Int = 0) throws(StoreError) {
        unlink(endFile)
        try SmallFile.write(
            runFile, JSON(["started": .number(time), "restarts": .number(Int64(restarts))]).description)
    }

    public func record(_ end: EndRecord) throws(StoreError) { try SmallFile.write(endFile, end.json.description) }
}

/// A machine's lock: held as long as this object lives, and let go by the kernel if the process is killed.
public final class MachineLock: Sendable {
    private let descriptor: Int32

    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }
}
