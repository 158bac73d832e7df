import ArgumentParser
import VMRuntime

/// `davit doctor`: what this host offers, and what `--engine auto` makes of it.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor", abstract: "Says what this host offers to run guests with, and what would help.")

    func run() { for line in HostReport.lines { print(line) } }
}
