import ArgumentParser

struct VersionCommand: ParsableCommand {
    static let number = "0.1.0"
    static let configuration = CommandConfiguration(commandName: "version", abstract: "Prints Davit's version.")

    func run() { print("davit \(Self.number)") }
}
