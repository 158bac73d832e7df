import ArgumentParser
import Davit
import HostLinux
import MachineStore
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

    @OptionGroup var cloudInit: CloudInitFlag

    @OptionGroup var keeping: KeepingFlags

    @Argument(help: "The image whose system the machine runs, on a disk of its own.", completion: .images)
    var image: String?

    @OptionGroup(title: "Options of the program in the guest") var commandFlags: GuestCommandFlags

    @Argument(parsing: .postTerminator, help: "A program to run in the guest, whose end is the machine's.")
    var command: [String] = []

    func validate() throws {
        if keeping.restart != nil && (!command.isEmpty || (name == nil && !detach && image == nil)) {
            throw ValidationError(
                "--restart goes with a machine that is kept: add --name or --detach, without a command")
        }
        guard !command.isEmpty else { return }
        if image == nil { throw ValidationError("a command goes with an image, which has the agent that runs it") }
        if detach {
            throw ValidationError("--detach and a command clash: 'davit exec' runs one in a machine that runs")
        }
    }

    func status() throws -> Int32 {
        guard name != nil || detach || image != nil || cloudInit.path != nil else { return try runHere() }
        let image = try StoredMachines.image(image)
        guard command.isEmpty else { return runProgram(image) }
        let machine = try StoredMachines.create(
            name: name, flags, image: image, cloudInit: cloudInit.path, keeping: keeping,
            environment: commandFlags.environment.variables())
        let launch = try start(machine, attached: !detach)
        guard detach else { return try ConsoleAttachment.attach(to: launch, of: machine) }
        print(machine.name)
        return 0
    }

    private func start(_ machine: MachineDirectory, attached: Bool) throws -> MachineLaunch {
        do {
            return try MachineLauncher.start(machine, attached: attached)
        } catch {
            // A machine that has never run is no use to anybody.
            try? StoredMachines.remove(machine)
            throw error
        }
    }

    /// Starts a machine for a program, and stops it at the program's end: the machine is gone at once if it is to be removed.
    private func runProgram(_ image: StoredImage?) -> Int32 {
        Guest.status {
            let command = try commandFlags.command(command)
            let signals = try TerminationSignals()
            let machine = try StoredMachines.create(
                name: name, flags, image: image, cloudInit: cloudInit.path, keeping: keeping,
                environment: commandFlags.environment.variables())
            _ = try start(machine, attached: false)
            let result = Result {
                try Guest(machine: machine).run(command, hasInput: commandFlags.interactive, signals: signals)
            }
            if keeping.isRemovedAtEnd {
                try KillCommand.kill(machine)
            } else {
                try StopCommand.stop(machine, seconds: 60)
            }
            return try result.get()
        }
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
