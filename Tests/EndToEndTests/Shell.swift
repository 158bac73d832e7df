import Glibc

/// The host's shell.
enum Shell {
    /// Whether strace is there and may trace what it starts.
    static let canTrace =
        (try? run("strace -f --seccomp-bpf -qq -e trace=io_uring_setup -o /dev/null true 2>/dev/null")) != nil

    struct CommandFailed: Error {
        let command: String
    }

    /// Throws unless the command ends with status 0.
    static func run(_ command: String) throws {
        var process: pid_t = 0
        let arguments = ["sh", "-c", command]
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { words.forEach { free($0) } }
        var status: Int32 = 0
        guard posix_spawn(&process, "/bin/sh", nil, nil, &words, environ) == 0,
            waitpid(process, &status, 0) == process, status == 0
        else { throw CommandFailed(command: command) }
    }
}
