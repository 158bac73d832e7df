import ArgumentParser
import Glibc
import MachineStore

struct CreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create", abstract: "Keeps a machine without starting it.", discussion: RunHelp.discussion)

    @OptionGroup var flags: MachineFlags
    @Option(name: [.short, .long], help: ArgumentHelp("Its name. (default: one is made up)", valueName: "name"))
    var name: String?
    @OptionGroup var cloudInit: CloudInitFlag
    @OptionGroup var keeping: KeepingFlags
    @OptionGroup var environment: EnvironmentFlags

    @Argument(help: "The image whose system the machine runs, on a disk of its own.", completion: .images)
    var image: String?

    func run() throws {
        let image = try StoredMachines.image(image)
        print(
            try StoredMachines.create(
                name: name, flags, image: image, cloudInit: cloudInit.path, keeping: keeping,
                environment: environment.variables()
            ).name)
    }
}

/// What becomes of a machine when a run of it ends.
struct KeepingFlags: ParsableArguments {
    @Flag(name: .customLong("rm"), help: "Removes the machine when it has ended.")
    var isRemovedAtEnd = false

    @Option(
        help: ArgumentHelp(
            "Whether it begins again when it ends by itself. (default: no)",
            valueName: "no|on-failure[:n]|always|unless-stopped"))
    var restart: String?

    func validate() throws { _ = try policy() }

    func policy() throws -> RestartPolicy {
        guard let restart else { return .no }
        guard let policy = RestartPolicy(restart) else {
            throw ValidationError(
                "--restart '\(restart)' is not known; give no, on-failure, on-failure:N, always or unless-stopped")
        }
        guard policy == .no || !isRemovedAtEnd else {
            throw ValidationError(
                "--rm and --restart clash: a machine is removed at its end, or begins again; leave one")
        }
        return policy
    }
}

/// What cloud-init in the guest is to do.
struct CloudInitFlag: ParsableArguments {
    @Option(
        name: .customLong("cloud-init"),
        help: ArgumentHelp("User-data for cloud-init in the guest: a disk that it looks for.", valueName: "file"),
        completion: .file())
    var path: String?
}

struct StartCommand: ParsableCommand, CommandWithStatus {
    static let configuration = CommandConfiguration(commandName: "start", abstract: "Starts machines that are kept.")

    @Flag(name: [.short, .long], help: "Stays as the machine's console until it ends.")
    var attach = false
    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func validate() throws {
        if attach && names.count > 1 { throw ValidationError("--attach goes with one machine: name one only") }
    }

    func status() throws -> Int32 {
        guard !attach else {
            let machine = try StoredMachines.find(names[0])
            return try ConsoleAttachment.attach(to: MachineLauncher.start(machine, attached: true), of: machine)
        }
        try StoredMachines.each(names) { machine in
            _ = try MachineLauncher.start(machine)
            print(machine.name)
        }
        return 0
    }
}

struct StopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop",
        abstract: "Shuts machines down: presses the power button, and pulls the plug if that does not help.")

    @Option(name: [.customShort("t"), .customLong("time")], help: "How many seconds a guest may take. (default: 60)")
    var seconds = 60
    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func validate() throws { try Self.check(seconds: seconds) }

    static func check(seconds: Int) throws {
        guard (0...86400).contains(seconds) else {
            throw ValidationError("--time '\(seconds)' cannot be: give 0 to 86400")
        }
    }

    func run() throws {
        try StoredMachines.each(names) { machine in
            try Self.stop(machine, seconds: seconds)
            print(machine.name)
        }
    }

    /// Waits until it has stopped; harmless if it has already.
    static func stop(_ machine: MachineDirectory, seconds: Int) throws {
        guard case .running = machine.status else { return }
        let control = try StoredMachines.control(machine, for: "stop")
        // A guest that is paused cannot hear.
        _ = control.ask(.resume)
        _ = control.ask(.powerButton)
        if control.waitForEnd(seconds: seconds) == nil {
            try KillCommand.kill(machine)
        } else {
            Self.waitForLock(machine)
        }
    }

    /// The process lets the lock go a moment after it has told of the end.
    static func waitForLock(_ machine: MachineDirectory) {
        for _ in 0..<500 {
            guard case .running = machine.status else { return }
            usleep(10_000)
        }
    }
}

struct KillCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "kill", abstract: "Pulls the plug of machines.")

    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        try StoredMachines.each(names) { machine in
            guard case .running = machine.status else {
                throw StoreError("machine '\(machine.name)' is not running, so there is nothing to kill")
            }
            try Self.kill(machine)
            print(machine.name)
        }
    }

    /// Asks the process to end, and ends it if it does not.
    static func kill(_ machine: MachineDirectory) throws {
        guard case .running = machine.status else { return }
        let control = try StoredMachines.control(machine, for: "kill")
        _ = control.ask(.kill)
        if control.waitForEnd(seconds: 5) == nil, let process = control.process { Glibc.kill(process, SIGKILL) }
        StopCommand.waitForLock(machine)
    }
}

struct PauseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Stops the processors of machines; their clocks go on.")

    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws { try StoredMachines.switchState(of: names, by: .pause, to: "paused") }
}

struct ResumeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Lets paused machines go on.", aliases: ["unpause"])

    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        try StoredMachines.switchState(of: names, by: .resume, to: "running")
        for name in names { Guest(machine: try StoredMachines.find(name)).setClock() }
    }
}

extension StoredMachines {
    fileprivate static func switchState(of names: [String], by request: ControlRequest, to state: String) throws {
        try each(names) { machine in
            let control = try control(machine, for: request.rawValue)
            if control.ask(.status) == state { throw StoreError("machine '\(machine.name)' is \(state) already") }
            guard control.ask(request) == state else {
                throw StoreError("machine '\(machine.name)' does not \(request.rawValue); it has just ended, or hangs")
            }
            print(machine.name)
        }
    }
}

struct EngineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "engine",
        abstract: "Has another engine go on with a machine that runs.",
        discussion:
            "The machine must have been started with --cpu baseline, and with --engine soft or kvm,irqchip=split. Its guest notices nothing."
    )

    @Argument(help: "The machine.", completion: .machines)
    var name: String
    @Argument(help: "soft or kvm.", completion: .list(["soft", "kvm"]))
    var engine: String

    func run() throws {
        let requests: [String: ControlRequest] = ["soft": .useSoft, "kvm": .useKVM]
        guard let request = requests[engine] else {
            throw ValidationError("'\(engine)' is not an engine to change to: give soft or kvm")
        }
        let machine = try StoredMachines.find(name)
        let control = try StoredMachines.control(machine, for: "change the engine of")
        var answer = control.ask(request)
        while answer == "changing" {
            usleep(10_000)
            answer = control.ask(.change)
        }
        guard let answer else { throw StoreError("machine '\(machine.name)' has just ended") }
        guard answer == "changed" else { throw StoreError("machine '\(machine.name)' goes on as it was: \(answer)") }
        print(machine.name)
    }
}

struct RestartCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "restart", abstract: "Stops machines and starts them.")

    @Option(
        name: [.customShort("t"), .customLong("time")], help: "How many seconds a guest may take to stop. (default: 60)"
    )
    var seconds = 60
    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        try StoredMachines.each(names) { machine in
            try StopCommand.stop(machine, seconds: seconds)
            _ = try MachineLauncher.start(machine)
            print(machine.name)
        }
    }
}

struct RemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Removes machines that do not run.", aliases: ["rm"])

    @Flag(name: [.short, .long], help: "Kills those that run, and minds none that is missing.")
    var force = false
    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        let store = try MachineStore()
        let known = try Set(store.all().map(\.name))
        try StoredMachines.each(force ? names.filter(known.contains) : names) { machine in
            if force { try KillCommand.kill(machine) }
            // A machine that is removed at its end may be so by now.
            if force, (try? store.find(machine.name)) == nil { return print(machine.name) }
            let lock: MachineLock
            do { lock = try machine.lock() } catch {
                throw StoreError("\(error), or add --force")
            }
            try store.remove(machine, holding: lock)
            print(machine.name)
        }
    }
}

struct RenameCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rename", abstract: "Gives a machine that does not run another name.")

    @Argument(help: "The machine.", completion: .machines)
    var name: String
    @Argument(help: "Its new name.")
    var newName: String

    func run() throws {
        let machine = try StoredMachines.find(name)
        try MachineStore().rename(machine, to: newName, holding: machine.lock())
        print(newName)
    }
}

struct CloneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "clone", abstract: "Makes a machine like one that does not run, with a copy of its disk.")

    @Argument(help: "The machine.", completion: .machines)
    var name: String
    @Argument(help: "The new machine's name. (default: one is made up)")
    var newName: String?

    func run() throws {
        let machine = try StoredMachines.find(name)
        let lock = try machine.lock()
        var configuration = machine.configuration
        configuration.created = Int64(time(nil))
        let disks = [MachineDirectory.diskFile, MachineDirectory.seedFile].map { machine.path + "/" + $0 }
            .filter { access($0, F_OK) == 0 }
        let clone = try MachineStore().create(name: newName, configuration) { fresh in
            guard !disks.isEmpty else { return }
            // Blocks are shared where the file system can.
            guard try HostProgram.run(["cp", "--reflink=auto", "--sparse=always", "--"] + disks + [fresh]) == 0 else {
                throw StoreError("the disks of machine '\(name)' cannot be copied; the line above says why")
            }
        }
        print(withExtendedLifetime(lock) { clone.name })
    }
}
