import Glibc
import MachineStore

/// Programs of the host's that do part of a verb's work.
enum HostProgram {
    /// Runs one in a process group of its own, with nothing to read, and waits for it. Its exit status, or 128 and the signal's number.
    ///
    /// What would end this process meanwhile (SIGINT, SIGTERM, SIGHUP, SIGQUIT) ends the group instead, and is thrown when it has cleaned
    /// up. `inherited` stays open in it.
    static func run(_ words: [String], inherited: Int32? = nil) throws -> Int32 {
        var ends = sigset_t()
        sigemptyset(&ends)
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD] { sigaddset(&ends, signal) }
        var before = sigset_t()
        pthread_sigmask(SIG_BLOCK, &ends, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        let process = try start(words, input: nil, output: STDERR_FILENO, inherited: inherited, ownGroup: &before)
        var interruption: Int32?
        var status: Int32 = 0
        while waitpid(process, &status, WNOHANG) == 0 {
            let signal = sigwaitinfo(&ends, nil)
            guard signal > 0, signal != SIGCHLD else { continue }
            interruption = signal
            kill(-process, SIGTERM)
        }
        if let interruption {
            throw CommandFailure(
                status: 128 + interruption, description: "\(words[0]) was broken off; nothing of it stays")
        }
        return self.status(status)
    }

    /// Starts one that reads `input` and writes to `output`, and goes with this process when the terminal's user ends it.
    static func start(_ words: [String], input: Int32?, output: Int32) throws -> pid_t {
        try start(words, input: input, output: output, inherited: nil, ownGroup: nil)
    }

    static func waitForEnd(of process: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return self.status(status)
    }

    private static func status(_ status: Int32) -> Int32 {
        status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
    }

    private static func start(
        _ words: [String], input: Int32?, output: Int32, inherited: Int32?, ownGroup signals: UnsafePointer<sigset_t>?
    ) throws -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        if let input {
            posix_spawn_file_actions_adddup2(&actions, input, 0)
        } else {
            posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        }
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        // To itself: which is how a descriptor is kept open there (POSIX.1-2024, posix_spawn_file_actions_adddup2).
        if let inherited { posix_spawn_file_actions_adddup2(&actions, inherited, inherited) }
        if let signals {
            posix_spawnattr_setsigmask(&attributes, signals)
            posix_spawnattr_setpgroup(&attributes, 0)
            posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        }
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var process: pid_t = 0
        let failure = posix_spawnp(&process, words[0], &actions, &attributes, &arguments, environ)
        guard failure == 0 else {
            throw StoreError("\(words[0]) does not start (\(String(cString: strerror(failure))))")
        }
        return process
    }
}
