import DavitTesting
import Glibc
import HostLinux

@testable import GuestAgent

/// The agent as a process of this host, with its socket as descriptor 3.
final class RunningAgent {
    struct Run {
        let end: GuestSession.End
        let output: String
        let errors: String
    }

    struct Failure: Error { let what: String }

    /// Only root can change to another user.
    let user: String
    let home: String
    private let directory: TemporaryDirectory
    private let process: pid_t

    init() throws {
        directory = try TemporaryDirectory()
        guard let account = getpwuid(getuid()) else { throw Failure(what: "who is this?") }
        user = String(cString: account.pointee.pw_name)
        home = String(cString: account.pointee.pw_dir)
        let script = directory["agent"]
        let file = open(script, O_WRONLY | O_CREAT | O_CLOEXEC, 0o700)
        guard file >= 0, write(file, GuestSession.agent, GuestSession.agent.count) == GuestSession.agent.count else {
            throw Failure(what: "cannot write \(script)")
        }
        close(file)
        let listener = Self.socket(at: directory["socket"]) { bind($0, $1, $2) == 0 && listen($0, 8) == 0 }
        defer { close(listener) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, listener, 3)
        // As systemd starts it: no signal is held back, and SIGPIPE is ignored.
        signal(SIGPIPE, SIG_IGN)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var words: [UnsafeMutablePointer<CChar>?] = [strdup("perl"), strdup(script), nil]
        defer { words.forEach { free($0) } }
        var process: pid_t = 0
        guard listener >= 0, posix_spawnp(&process, "perl", &actions, &attributes, &words, environ) == 0 else {
            throw Failure(what: "perl does not start")
        }
        self.process = process
    }

    deinit {
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
    }

    func connect() throws -> Int32 {
        let connection = Self.socket(at: directory["socket"]) { Glibc.connect($0, $1, $2) == 0 }
        guard connection >= 0 else { throw Failure(what: "the agent's socket refuses") }
        return connection
    }

    func run(_ words: [String], input: String? = nil) throws -> Run { try run(GuestCommand(words), input: input) }

    func run(_ command: GuestCommand, input: String? = nil, signals: EventFD? = nil) throws -> Run {
        var command = command
        command.user = user
        let connection = try connect()
        defer { close(connection) }
        let files = try ["input", "output", "errors"].map { name in
            let file = open(directory[name], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            guard file >= 0 else { throw Failure(what: "cannot write \(name)") }
            return file
        }
        defer { for file in files { close(file) } }
        if let input {
            var bytes = Array(input.utf8)
            guard pwrite(files[0], &bytes, bytes.count, 0) == bytes.count else { throw Failure(what: "no input") }
        }
        var session = GuestSession(
            command, over: connection, input: input == nil ? nil : files[0], output: files[1], errorOutput: files[2],
            signals: signals
        )
        let end = session.run()
        return Run(end: end, output: Self.text(of: files[1]), errors: Self.text(of: files[2]))
    }

    private static func text(of file: Int32) -> String {
        var bytes = [UInt8](repeating: 0, count: Int(max(lseek(file, 0, SEEK_END), 0)))
        let count = pread(file, &bytes, bytes.count, 0)
        return String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self)
    }

    /// -1 if that fails.
    private static func socket(at path: String, _ use: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Bool) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        // Safe: a sockaddr_un is a sockaddr of its family.
        let isDone = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                use(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if isDone { return descriptor }
        close(descriptor)
        return -1
    }
}
