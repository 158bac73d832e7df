import Glibc

/// A small process that puts the terminal back should this one be killed without a chance to (SIGKILL): sh and stty, waiting for the end of
/// a pipe that this process holds.
final class TerminalGuard: Sendable {
    private let process: pid_t
    private let writeEnd: Int32

    /// The shell may have put the terminal in order itself by the time, and be editing a line: only this process's mode is undone.
    private static let script = #"read -r _ || [ "$(stty -g <&3)" != "$1" ] || exec stty "$0" <&3"#

    /// Nil without sh: then a kill leaves the terminal as it was left before there were guards, for `stty sane` to mend.
    init?(_ descriptor: Int32, cooked: termios, raw: termios) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        defer { close(ends[0]) }
        var child = ChildProcess(["sh", "-c", Self.script, Self.describe(cooked), Self.describe(raw)])
        child.program = "/bin/sh"
        child.descriptors = [
            (3, .descriptor(descriptor)), (0, .descriptor(ends[0])), (1, .nothing), (2, .descriptor(1)),
        ]
        child.holdNothingBack()
        // There no key and no hang-up reaches it, and it may set the mode of a terminal that is not its own.
        child.station = .ownSession
        guard let process = try? child.start() else {
            close(ends[1])
            return nil
        }
        self.process = process
        writeEnd = ends[1]
    }

    /// The terminal is in order: it is not needed any more.
    func dismiss() {
        var end: UInt8 = 0x0A
        _ = write(writeEnd, &end, 1)
        close(writeEnd)
        ChildProcess.waitForEnd(of: process)
    }

    /// A mode as `stty -g` prints it and stty takes it.
    private static func describe(_ mode: termios) -> String {
        let flags = [mode.c_iflag, mode.c_oflag, mode.c_cflag, mode.c_lflag]
        let keys = withUnsafeBytes(of: mode.c_cc) { $0.map { UInt32($0) } }
        return (flags + keys).map { String($0, radix: 16) }.joined(separator: ":")
    }
}
