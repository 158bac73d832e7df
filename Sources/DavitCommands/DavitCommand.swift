import ArgumentParser
import Davit
import Glibc
import VMRuntime

/// The program: `davit VERB ...`.
public struct DavitCommand: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "davit",
        abstract: "Runs virtual machines, with or without hardware virtualization.",
        subcommands: [RunCommand.self, DiskCommand.self, DoctorCommand.self, VersionCommand.self])

    public init() {}

    /// Carries out a command line, without the program's name, and returns the exit status.
    public static func run(_ arguments: [String]) -> Int32 {
        do {
            var command = try parseAsRoot(arguments)
            if let run = command as? RunCommand { return try run.runMachine() }
            try command.run()
            return 0
        } catch let error as MachineError {
            complain(error.description)
            return ExitStatus.status(of: error)
        } catch {
            if exitCode(for: error) == .success {
                print(fullMessage(for: error))
                return 0
            }
            complain(message(for: error) + "; see 'davit help \(arguments.first == "disk" ? "disk" : "run")'")
            return ExitStatus.usage
        }
    }

    static func complain(_ message: String) { Log(level: .error).write(.error, message) }
}
