import ArgumentParser
import Glibc
import MachineStore

struct LogsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs", abstract: "Prints what a machine has said on its first serial port.")

    @Flag(name: [.short, .long], help: "Goes on until the machine ends.")
    var follow = false
    @Flag(help: "What Davit said of the machine, instead.")
    var davit = false
    @Argument(help: "The machine.", completion: .machines)
    var name: String

    func run() throws {
        let machine = try StoredMachines.find(name)
        let files = davit ? [machine.log] : [machine.olderConsoleLog, machine.consoleLog]
        for file in files.dropLast() { _ = Self.copy(file, from: 0) }
        let last = files[files.count - 1]
        var place = Self.copy(last, from: 0)
        while follow {
            let isRunning = if case .running = machine.status { true } else { false }
            place = Self.copy(last, from: place)
            guard isRunning else { return }
            usleep(100_000)
        }
    }

    /// Prints what lies behind `place`, from the beginning if the file has become shorter; returns where it ends.
    private static func copy(_ path: String, from place: off_t) -> off_t {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return place }
        defer { close(descriptor) }
        var place = lseek(descriptor, 0, SEEK_END) < place ? 0 : place
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = pread(descriptor, &buffer, buffer.count, place)
            guard count > 0, write(STDOUT_FILENO, buffer, count) == count else { return place }
            place += off_t(count)
        }
    }
}

/// `davit console`.
struct ConsoleVerb: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(
        commandName: "console", abstract: "Becomes the console of a machine that runs.", aliases: ["attach"])

    @Argument(help: "The machine.", completion: .machines)
    var name: String

    func status() throws -> Int32 { try ConsoleAttachment.attach(to: StoredMachines.find(name)) }
}
