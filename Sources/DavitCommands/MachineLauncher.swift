import Glibc
import MachineStore
import VMRuntime

/// Starts a kept machine's process, which outlives this one and its terminal.
enum MachineLauncher {
    /// `POSIX_SPAWN_SETSID`, which glibc declares for GNU programs only.
    private static let newSession: Int16 = 0x80
    /// Where the process tells how it came up.
    static let reportDescriptor: Int32 = 3

    /// The machine's console, for a launcher that stays.
    static let consoleDescriptor: Int32 = 4

    /// Returns when the guest has begun to run; throws what keeps it from that.
    static func start(_ machine: MachineDirectory, attached: Bool = false) throws -> MachineLaunch {
        var report: [Int32] = [-1, -1]
        var console: [Int32] = [-1, -1]
        guard pipe(&report) == 0,
            !attached || socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &console) == 0
        else { throw StoreError("no pipe (\(String(cString: strerror(errno))))") }
        for end in report + console { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let launch = MachineLaunch(report: report[0], console: console[0], machine: machine)
        do {
            defer {
                close(report[1])
                close(console[1])
            }
            try spawn(machine, report: report[1], console: attached ? console[1] : nil)
        }
        guard let json = launch.nextReport() else {
            throw StoreError("machine '\(machine.name)' did not come up; look at '\(machine.log)'")
        }
        guard let message = json["error"]?.text else { return launch }
        throw CommandFailure(status: Int32(truncatingIfNeeded: json["status"]?.number ?? 1), description: message)
    }

    private static func spawn(_ machine: MachineDirectory, report: Int32, console: Int32?) throws {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 0, 1)
        posix_spawn_file_actions_addopen(&actions, 2, machine.log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        // Above all that are set here, so that none is overwritten before it is copied.
        let high = [report, console].compactMap { $0.map { fcntl($0, F_DUPFD_CLOEXEC, 10) } }
        defer { for descriptor in high { close(descriptor) } }
        posix_spawn_file_actions_adddup2(&actions, high[0], reportDescriptor)
        if high.count > 1 { posix_spawn_file_actions_adddup2(&actions, high[1], consoleDescriptor) }
        // What a shell has this process ignore or hold back is not meant for the machine.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        var all = sigset_t()
        sigfillset(&all)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) | newSession)
        let arguments = ["davit", MachineProcess.verb, machine.name] + (console == nil ? [] : ["--attached"])
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var process: pid_t = 0
        let failure = posix_spawn(&process, "/proc/self/exe", &actions, &attributes, &words, environ)
        guard failure == 0 else {
            throw StoreError("machine '\(machine.name)' gets no process (\(String(cString: strerror(failure))))")
        }
    }
}

/// A machine's process from the side of who started it.
final class MachineLaunch {
    private let report: Int32
    /// The machine's console; -1 unless that was asked for.
    let console: Int32
    private let machine: MachineDirectory
    private var unread: [UInt8] = []

    init(report: Int32, console: Int32, machine: MachineDirectory) {
        (self.report, self.console, self.machine) = (report, console, machine)
    }

    deinit {
        close(report)
        if console >= 0 { close(console) }
    }

    /// Waits for the run's end.
    func waitForEnd() -> EndRecord? { nextReport()?["end"].flatMap(EndRecord.init) ?? machine.end }

    /// The next line; nil when there is none.
    fileprivate func nextReport() -> JSON? {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            if let end = unread.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: unread[..<end], as: UTF8.self)
                unread.removeSubrange(...end)
                return JSON(parsing: line)
            }
            let count = read(report, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return nil }
            unread += buffer[..<count]
        }
    }
}
