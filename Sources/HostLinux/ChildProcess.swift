import Glibc

/// A program that is to run beside this one (posix_spawn(3)).
public struct ChildProcess {
    /// What a descriptor of its leads to.
    public enum Source: Sendable {
        /// What leads to this descriptor: one of this process's, or one that was set before.
        case descriptor(Int32)
        case file(String, flags: Int32, mode: mode_t = 0)

        public static let nothing = Source.file("/dev/null", flags: O_RDWR)
    }

    /// Whose terminal's keys and hang-ups reach it.
    public enum Station: Sendable {
        /// This process's.
        case sameGroup
        /// No keys.
        case ownGroup
        /// Neither.
        case ownSession
    }

    /// Its name and its arguments.
    public var words: [String]
    /// The program's file; nil: the first word, looked for in PATH.
    public var program: String?
    /// Set in this order. What is not named and not closed on exec it shares with this process.
    public var descriptors: [(number: Int32, source: Source)] = []
    public var station = Station.sameGroup
    /// Signals that it holds back; nil: those that the calling thread does.
    public var heldBack: sigset_t?
    /// All signals do what they do by default, what this process or its parents ignore among them.
    public var resetsSignals = false

    public init(_ words: [String]) { self.words = words }

    /// No signal is held back: what this process handles by other means is the child's again.
    public mutating func holdNothingBack() {
        var none = sigset_t()
        sigemptyset(&none)
        heldBack = none
    }

    /// `POSIX_SPAWN_SETSID`, which glibc declares for GNU programs only.
    private static let newSession: Int16 = 0x80

    /// Starts it; its number. ENOENT: there is no such program.
    public func start() throws(SystemError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        for (number, source) in descriptors {
            switch source {
            // One that is set to itself stays open there (POSIX.1-2024, posix_spawn_file_actions_adddup2).
            case .descriptor(let descriptor): posix_spawn_file_actions_adddup2(&actions, descriptor, number)
            case .file(let path, let flags, let mode):
                posix_spawn_file_actions_addopen(&actions, number, path, flags, mode)
            }
        }
        var flags: Int16 = 0
        if var heldBack {
            posix_spawnattr_setsigmask(&attributes, &heldBack)
            flags |= Int16(POSIX_SPAWN_SETSIGMASK)
        }
        if resetsSignals {
            var all = sigset_t()
            sigfillset(&all)
            posix_spawnattr_setsigdefault(&attributes, &all)
            flags |= Int16(POSIX_SPAWN_SETSIGDEF)
        }
        switch station {
        case .sameGroup: break
        case .ownGroup:
            posix_spawnattr_setpgroup(&attributes, 0)
            flags |= Int16(POSIX_SPAWN_SETPGROUP)
        case .ownSession: flags |= Self.newSession
        }
        posix_spawnattr_setflags(&attributes, flags)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var process: pid_t = 0
        // A name with a slash is not looked for.
        let failure = posix_spawnp(&process, program ?? words[0], &actions, &attributes, &arguments, environ)
        guard failure == 0 else { throw SystemError("posix_spawn", code: failure) }
        return process
    }

    /// Waits for its end: its exit status, or 128 and the signal's number.
    @discardableResult
    public static func waitForEnd(of process: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return exitStatus(status)
    }

    /// Of what waitpid(2) says.
    public static func exitStatus(_ status: Int32) -> Int32 {
        status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
    }
}
