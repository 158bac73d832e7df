import Glibc

/// The host's shell.
enum Shell {
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
