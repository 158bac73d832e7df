import Glibc
import HostLinux
import MachineStore
import VMRuntime

/// Starts a kept machine's process, which outlives this one and its terminal.
enum MachineLauncher {
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
        var child = ChildProcess(
            ["davit", MachineProcess.verb, machine.name] + (console == nil ? [] : ["--attached"]))
        child.program = "/proc/self/exe"
        child.descriptors = [
            (0, .nothing), (1, .descriptor(0)),
            (2, .file(machine.log, flags: O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)),
        ]
        // Above all that are set here, so that none is overwritten before it is copied.
        let high = [report, console].compactMap { $0.map { fcntl($0, F_DUPFD_CLOEXEC, 10) } }
        defer { for descriptor in high { close(descriptor) } }
        for (number, descriptor) in zip([reportDescriptor, consoleDescriptor], high) {
            child.descriptors.append((number, .descriptor(descriptor)))
        }
        // What a shell has this process ignore or hold back is not meant for the machine.
        child.holdNothingBack()
        child.resetsSignals = true
        child.station = .ownSession
        do throws(SystemError) { _ = try child.start() } catch {
            throw StoreError("machine '\(machine.name)' gets no process (\(String(cString: strerror(error.code))))")
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
