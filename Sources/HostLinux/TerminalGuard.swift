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
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
            close(ends[0])
        }
        posix_spawn_file_actions_adddup2(&actions, descriptor, 3)
        posix_spawn_file_actions_adddup2(&actions, ends[0], 0)
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        // In a session of its own no key and no hang-up reaches it, and it may set the mode of a terminal that is not its own.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Self.newSession)
        let arguments = ["sh", "-c", Self.script, Self.describe(cooked), Self.describe(raw)]
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var process: pid_t = 0
        guard posix_spawn(&process, "/bin/sh", &actions, &attributes, &words, environ) == 0 else {
            close(ends[1])
            return nil
        }
        self.process = process
        writeEnd = ends[1]
    }

    /// `POSIX_SPAWN_SETSID`, which glibc declares for GNU programs only.
    private static let newSession: Int16 = 0x80

    /// The terminal is in order: it is not needed any more.
    func dismiss() {
        var end: UInt8 = 0x0A
        _ = write(writeEnd, &end, 1)
        close(writeEnd)
        while waitpid(process, nil, 0) < 0 && errno == EINTR {}
    }

    /// A mode as `stty -g` prints it and stty takes it.
    private static func describe(_ mode: termios) -> String {
        let flags = [mode.c_iflag, mode.c_oflag, mode.c_cflag, mode.c_lflag]
        let keys = withUnsafeBytes(of: mode.c_cc) { $0.map { UInt32($0) } }
        return (flags + keys).map { String($0, radix: 16) }.joined(separator: ":")
    }
}
