import ConsoleBackends
import Glibc
import GuestAgent
import HostLinux
import MachineStore

/// A machine's guest, by way of its agent.
struct Guest {
    /// How long a guest may take from its start until its agent answers, in seconds.
    private static let patience = 180
    /// How long one that has had that time may take to answer, in seconds.
    private static let shortPatience = 10
    /// When those hear of the wait who do not sit at a terminal, in seconds.
    private static let notice = 20

    let machine: MachineDirectory

    /// The status of a verb that ends with a guest's program's: Davit's own failures have one that is not mistaken for that.
    static func status(_ body: () throws -> Int32) -> Int32 {
        do { return try body() } catch {
            DavitCommand.complain("\(error)")
            return (error as? CommandFailure)?.status ?? ExitStatus.noCommand
        }
    }

    /// A connection to the agent, which is waited for while the guest starts.
    private func connect(_ signals: EventFD?) throws -> Int32 {
        guard machine.configuration.image != nil else {
            throw StoreError(
                "machine '\(machine.name)' has no agent in its guest; those have one that are made from an image of 'davit image pull'"
            )
        }
        var hasTold = false
        var hasExplained = false
        let start = time(nil)
        // A guest that has been up for long has an agent that answers at once, or none.
        let end = max((machine.started.map { Int($0) } ?? start) + Self.patience, start + Self.shortPatience)
        while true {
            guard case .running = machine.status else {
                throw StoreError(
                    hasTold
                        ? "machine '\(machine.name)' ended before its agent answered; look at 'davit logs \(machine.name)'"
                        : "machine '\(machine.name)' is not running; 'davit start \(machine.name)' starts it")
            }
            if let connection = GuestSocket.connect(to: machine, port: GuestSession.port) { return connection }
            if let signals, signals.wait(milliseconds: 50) {
                let signal = Int32(truncatingIfNeeded: signals.drain())
                throw CommandFailure(status: 128 + signal, description: "broken off while the guest was starting")
            }
            if signals == nil { usleep(50_000) }
            if !hasTold && Terminal.isTerminal(STDERR_FILENO) {
                DavitCommand.complain("waiting for the guest's agent of machine '\(machine.name)'")
            }
            hasTold = true
            if !hasExplained && time(nil) - start >= Self.notice {
                DavitCommand.complain(
                    "the guest of machine '\(machine.name)' does not answer yet; should its system have no agent, 'davit console \(machine.name)' reaches it"
                )
                hasExplained = true
            }
            guard time(nil) < end else {
                throw StoreError(
                    "the guest of machine '\(machine.name)' has no agent that answers; those of 'davit image pull' and of imported tarballs have one; 'davit console \(machine.name)' reaches others, and 'davit logs \(machine.name)' says what they do"
                )
            }
        }
    }

    /// Runs a program on this process's standard streams; the exit status.
    func run(_ command: GuestCommand, hasInput: Bool, signals: TerminationSignals) throws -> Int32 {
        let hasTerminal = command.terminal != nil
        if hasTerminal && !Terminal.isTerminal(STDIN_FILENO) {
            throw StoreError("--tty goes with a terminal, which standard input is not; leave --tty out")
        }
        let connection = try connect(signals.event)
        defer { close(connection) }
        var command = command
        // What stands later holds.
        command.environment = machine.configuration.environment + command.environment
        if hasTerminal {
            Terminal.noticeSizeChanges()
            try Terminal.makeRaw(STDIN_FILENO)
        }
        var session = GuestSession(
            command, over: connection, input: hasInput ? STDIN_FILENO : nil, output: STDOUT_FILENO,
            errorOutput: STDERR_FILENO, sizeSource: hasTerminal ? STDIN_FILENO : nil, signals: signals.event)
        let end = session.run()
        Terminal.restore()
        return status(of: end)
    }

    /// Runs a program on descriptors; the exit status. `prepare` is called when the guest has answered, before the program starts.
    func run(
        _ words: [String], input: Int32?, output: Int32, signals: TerminationSignals, prepare: () throws -> Void
    ) throws -> Int32 {
        let connection = try connect(signals.event)
        defer { close(connection) }
        try prepare()
        var session = GuestSession(
            GuestCommand(words), over: connection, input: input, output: output, errorOutput: STDERR_FILENO,
            signals: signals.event)
        return status(of: session.run())
    }

    private func status(of end: GuestSession.End) -> Int32 {
        switch end {
        case .exited(let status): return status
        case .failed(let status, let why):
            DavitCommand.complain("machine '\(machine.name)': \(why)")
            return status
        case .lost: DavitCommand.complain("machine '\(machine.name)' has ended, or its agent")
        case .outputClosed: return 128 + SIGPIPE
        case .tooLong: DavitCommand.complain("the command is longer than 1 MiB; put it into a file, and that there")
        }
        return ExitStatus.noCommand
    }

    /// What a program of few words says, if the guest runs and answers soon; nil if it does not, or the program fails.
    func ask(_ words: [String]) -> String? {
        guard machine.configuration.image != nil,
            let connection = GuestSocket.connect(to: machine, port: GuestSession.port, seconds: 2)
        else { return nil }
        defer { close(connection) }
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return nil }
        defer { close(ends[0]) }
        // As much as a pipe takes without a reader.
        var answer = [UInt8](repeating: 0, count: 32 << 10)
        let nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC)
        var session = GuestSession(
            GuestCommand(words), over: connection, input: nil, output: ends[1], errorOutput: nowhere, patience: 3000,
            maximumOutput: answer.count)
        let end = session.run()
        close(ends[1])
        close(nowhere)
        guard end == .exited(0) else { return nil }
        let count = read(ends[0], &answer, answer.count)
        return String(decoding: answer.prefix(max(count, 0)), as: UTF8.self)
    }

    /// Addresses by which it can be reached from elsewhere.
    var addresses: [String] {
        let lines = ask(["ip", "-o", "addr", "show", "scope", "global"])?.split(separator: "\n") ?? []
        return lines.compactMap { line in
            let words = line.split(separator: " ")
            guard let place = words.firstIndex(where: { $0 == "inet" || $0 == "inet6" }), place + 1 < words.count else {
                return nil
            }
            let address = words[place + 1].prefix { $0 != "/" }
            return address.allSatisfy { $0.isHexDigit || $0 == "." || $0 == ":" } ? String(address) : nil
        }
    }

    /// Sets its clock by the host's.
    func setClock() { _ = ask(["date", "--set=@\(time(nil))"]) }
}
