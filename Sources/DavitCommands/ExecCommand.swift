import ArgumentParser
import Glibc
import GuestAgent
import HostLinux
import MachineStore

/// What programs in a guest find in their environment.
struct EnvironmentFlags: ParsableArguments {
    @Option(
        name: [.short, .long], parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A variable of a program's environment in the guest; without a value, this host's. Repeatable.",
            valueName: "name=value"))
    var env: [String] = []

    /// NAME=VALUE each.
    func variables() throws -> [String] {
        try env.map { text in
            guard !text.isEmpty, !text.hasPrefix("=") else {
                throw ValidationError("--env '\(text)' has no name; write NAME=VALUE")
            }
            if text.contains("=") { return text }
            return "\(text)=\(getenv(text).map { String(cString: $0) } ?? "")"
        }
    }
}

/// How a program runs in the guest.
struct GuestCommandFlags: ParsableArguments {
    @Flag(name: [.short, .long], help: "The program reads this command's standard input.")
    var interactive = false
    @Flag(name: [.short, .long], help: "The program gets a terminal.")
    var tty = false
    @OptionGroup var environment: EnvironmentFlags
    @Option(
        name: [.short, .long],
        help: ArgumentHelp("Its working directory. (default: the user's home)", valueName: "path"))
    var workdir: String?
    @Option(name: [.short, .long], help: ArgumentHelp("Who runs it. (default: root)", valueName: "user"))
    var user: String?

    func command(_ words: [String]) throws -> GuestCommand {
        var command = GuestCommand(words)
        command.environment = try environment.variables()
        command.directory = workdir
        if let user { command.user = user }
        if tty { command.terminal = Self.terminal }
        return command
    }

    static var terminal: String { getenv("TERM").map { String(cString: $0) } ?? "linux" }
}

struct ExecCommand: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(
        commandName: "exec", abstract: "Runs a program in the guest of a machine that runs, and ends with its status.",
        discussion: "125 is Davit's own failure, 126 a program that cannot be run, 127 one that is not there.")

    @OptionGroup var flags: GuestCommandFlags
    @Argument(help: "The machine.", completion: .machines)
    var name: String
    @Argument(parsing: .captureForPassthrough, help: "The program and its arguments.")
    var command: [String]

    func status() throws -> Int32 {
        let words = command.first == "--" ? Array(command.dropFirst()) : command
        guard !words.isEmpty else { throw ValidationError("the command is missing: 'davit shell \(name)' is a shell") }
        let command = try flags.command(words)
        return Guest.status {
            try Guest(machine: StoredMachines.find(name))
                .run(command, hasInput: flags.interactive, signals: TerminationSignals())
        }
    }
}

struct ShellCommand: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(
        commandName: "shell", abstract: "Is a shell in the guest of a machine that runs.")

    @Option(name: [.short, .long], help: "Whose shell.")
    var user = "root"
    @Argument(help: "The machine.", completion: .machines)
    var name: String

    func status() throws -> Int32 {
        var command = GuestCommand([])
        command.user = user
        if Terminal.isTerminal(STDIN_FILENO) { command.terminal = GuestCommandFlags.terminal }
        return Guest.status {
            try Guest(machine: StoredMachines.find(name))
                .run(command, hasInput: true, signals: TerminationSignals())
        }
    }
}
