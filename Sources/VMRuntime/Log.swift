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
    /// Keeps lines whole: guards writes to the descriptor.
    private let writing = Mutex(())

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

    /// `message` may have several lines; it ends without a line feed.
    public func write(_ level: LogLevel, _ message: @autoclosure () -> String) {
        guard level <= self.level else { return }
        var text = "davit: " + message() + "\n"
        // A raw terminal does not return the carriage by itself.
        if Terminal.isRaw && Terminal.isTerminal(descriptor) { text = text.replacing("\n", with: "\r\n") }
        let bytes = Array(text.utf8)
        writing.withLock { _ in
            // A log that cannot be written to is no reason to end the machine.
            _ = Glibc.write(descriptor, bytes, bytes.count)
        }
    }
}
