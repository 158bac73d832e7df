import Glibc
import HostLinux
import Synchronization

/// How much a log line matters.
public enum LogLevel: Int, Comparable, CaseIterable, Sendable {
    case error, warning, info, debug

    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    public init?(name: String) {
        guard let level = Self.allCases.first(where: { "\($0)" == name }) else { return nil }
        self = level
    }
}

/// Lines about the machine for its user, on standard error or in a file. Any thread may call.
public final class Log: Sendable {
    public let level: LogLevel
    private let descriptor: Int32
    /// Keeps lines whole: guards writes to the descriptor, and whether one has failed.
    private let hasFailed = Mutex(false)

    /// Lines that guests have caused in the current second of the host's monotonic clock.
    private struct Flood {
        var second = 0
        var lines = 0
    }

    /// How many lines a guest may cause in a second.
    private static let linesPerSecond = 50
    /// Guards the count.
    private let flood = Mutex(Flood())

    /// Lines up to `level` on standard error.
    public init(level: LogLevel = .warning) {
        self.level = level
        descriptor = STDERR_FILENO
    }

    /// Lines up to `level` at the end of a file, which is made if it does not exist.
    public init(level: LogLevel, path: String) throws(MachineError) {
        self.level = level
        descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            throw MachineError(
                .file,
                "--log \(path): cannot write to it (\(String(cString: strerror(errno)))); give a file in a directory you may write to"
            )
        }
    }

    deinit { if descriptor != STDERR_FILENO { close(descriptor) } }

    /// A warning that the guest has caused, and could cause again and again: past a rate, lines are dropped.
    public func writeFromGuest(_ message: String) {
        guard level >= .warning else { return }
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let lines = flood.withLock { flood in
            if flood.second != now.tv_sec { flood = Flood(second: now.tv_sec) }
            flood.lines += 1
            return flood.lines
        }
        if lines <= Self.linesPerSecond { write(.warning, message) }
        if lines == Self.linesPerSecond { write(.warning, "more such lines in this second are dropped") }
    }

    /// `message` may have several lines; it ends without a line feed.
    public func write(_ level: LogLevel, _ message: @autoclosure () -> String) {
        guard level <= self.level else { return }
        var text = "davit: " + message() + "\n"
        // A raw terminal does not return the carriage by itself.
        if Terminal.isRaw && Terminal.isTerminal(descriptor) { text = text.replacing("\n", with: "\r\n") }
        let bytes = Array(text.utf8)
        hasFailed.withLock { hasFailed in
            guard Glibc.write(descriptor, bytes, bytes.count) != bytes.count, !hasFailed else { return }
            // A log that cannot be written to is no reason to end the machine.
            hasFailed = true
            guard descriptor != STDERR_FILENO else { return }
            let line = Array(
                "davit: --log: lines are lost (\(String(cString: strerror(errno)))); the machine goes on\(Terminal.isRaw ? "\r" : "")\n"
                    .utf8)
            _ = Glibc.write(STDERR_FILENO, line, line.count)
        }
    }
}
