import Glibc
import HostLinux
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
        let process = try start(words, input: nil, output: STDERR_FILENO, inherited: inherited, ownGroup: before)
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
        return ChildProcess.exitStatus(status)
    }

    /// Starts one that reads `input` and writes to `output`, and goes with this process when the terminal's user ends it.
    static func start(_ words: [String], input: Int32?, output: Int32) throws -> pid_t {
        try start(words, input: input, output: output, inherited: nil, ownGroup: nil)
    }

    private static func start(
        _ words: [String], input: Int32?, output: Int32, inherited: Int32?, ownGroup signals: sigset_t?
    ) throws -> pid_t {
        var child = ChildProcess(words)
        child.descriptors = [
            (0, input.map { .descriptor($0) } ?? .file("/dev/null", flags: O_RDONLY)), (1, .descriptor(output)),
        ]
        if let inherited { child.descriptors.append((inherited, .descriptor(inherited))) }
        if let signals {
            child.heldBack = signals
            child.station = .ownGroup
        }
        do throws(SystemError) { return try child.start() } catch {
            throw StoreError("\(words[0]) does not start (\(String(cString: strerror(error.code))))")
        }
    }
}
