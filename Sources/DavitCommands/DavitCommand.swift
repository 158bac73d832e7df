import ArgumentParser
import Davit
import Glibc
import MachineStore
import VMRuntime

/// The program: `davit VERB ...`.
public struct DavitCommand: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "davit",
        abstract: "Runs virtual machines, with or without hardware virtualization.",
        subcommands: [
            RunCommand.self, CreateCommand.self, StartCommand.self, StopCommand.self, KillCommand.self,
            PauseCommand.self, EngineCommand.self,
            ResumeCommand.self, RestartCommand.self, RemoveCommand.self, ListCommand.self, InspectCommand.self,
            LogsCommand.self, ConsoleVerb.self, ExecCommand.self, ShellCommand.self, CopyCommand.self,
            StatsCommand.self, RenameCommand.self, CloneCommand.self, UpCommand.self, DownCommand.self,
            ImageCommand.self, NetworkCommand.self, DiskCommand.self, DoctorCommand.self, CompletionCommand.self,
            VersionCommand.self,
            MachineProcess.self,
        ])

    public init() {}

    /// Carries out a command line, without the program's name, and returns the exit status.
    public static func run(_ arguments: [String]) -> Int32 {
        ProgramStart.note()
        do {
            var command = try parseAsRoot(arguments)
            if let command = command as? any CommandWithStatus { return try command.status() }
            try command.run()
            return 0
        } catch let error where error is MachineError || error is StoreError || error is CommandFailure {
            complain("\(error)")
            return status(of: error)
        } catch {
            if exitCode(for: error) == .success {
                print(fullMessage(for: error))
                return 0
            }
            complain(message(for: error) + "; see 'davit help \(verb(of: arguments))'")
            return ExitStatus.usage
        }
    }

    /// The verb whose help is worth reading.
    private static func verb(of arguments: [String]) -> String {
        var verbs: [String] = []
        for command in configuration.subcommands { verbs.append(command.configuration.commandName ?? "") }
        return arguments.first.flatMap { verbs.contains($0) ? $0 : nil } ?? "run"
    }

    /// The exit status for what a verb throws.
    static func status(of error: any Error) -> Int32 {
        switch error {
        case let error as MachineError: ExitStatus.status(of: error)
        case let error as CommandFailure: error.status
        case is StoreError: ExitStatus.noSuchState
        default: ExitStatus.usage
        }
    }

    static func complain(_ message: String) { Log(level: .error).write(.error, message) }
}

/// A verb whose exit status is not only success or failure.
protocol CommandWithStatus {
    func status() throws -> Int32
}

/// What keeps a verb from its work, with the exit status for it.
struct CommandFailure: Error, CustomStringConvertible {
    let status: Int32
    let description: String
}
