import ArgumentParser
import Davit
import VMRuntime

/// `davit run`: boots a kernel in a new machine and stays until it ends.
///
/// A machine with a name, or in the background, is kept: it has a process and a directory of its own, and this command is but a console
/// to it. Any other is this process, and leaves nothing behind.
struct RunCommand: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(
        commandName: "run", abstract: "Boots a kernel in a new virtual machine.", discussion: RunHelp.discussion)

    @OptionGroup var flags: MachineFlags

    @Option(name: [.short, .long], help: ArgumentHelp("Keeps the machine under this name.", valueName: "name"))
    var name: String?

    @Flag(name: [.short, .long], help: "Keeps the machine, and leaves it running in the background.")
    var detach = false

    @Flag(name: .customLong("rm"), help: "Removes the machine when it has ended.")
    var isRemovedAtEnd = false

    @Argument(help: "The image whose system the machine runs, on a disk of its own.")
    var image: String?

    func status() throws -> Int32 {
        guard name != nil || detach || image != nil else { return try runHere() }
        let machine = try StoredMachines.create(
            name: name, flags, image: StoredMachines.image(image), isRemovedAtEnd: isRemovedAtEnd)
        let launch: MachineLaunch
        do {
            launch = try MachineLauncher.start(machine, attached: !detach)
        } catch {
            // A machine that has never run is no use to anybody.
            try? StoredMachines.remove(machine)
            throw error
        }
        guard detach else { return try ConsoleAttachment.attach(to: launch, of: machine) }
        print(machine.name)
        return 0
    }

    private func runHere() throws -> Int32 {
        let log = try flags.makeLog()
        let machine = try VirtualMachine(try flags.makeConfiguration(), log: log)
        try machine.stopOnSignals()
        let (status, message) = ExitStatus.status(of: try machine.run())
        if let message { log.write(.error, message) }
        return status
    }
}
