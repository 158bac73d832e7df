import ArgumentParser
import Glibc
import MachineStore
import VMRuntime

/// Which davit.yaml.
struct MachineFileFlag: ParsableArguments {
    @Option(
        name: [.customShort("f"), .customLong("file")],
        help: ArgumentHelp("The file.", valueName: "file"), completion: .file())
    var name = UpCommand.usualFile

    /// The file, from whose directory this process goes on.
    func read() throws -> MachineFile {
        let file = try MachineFile(name)
        guard chdir(file.directory.isEmpty ? "/" : file.directory) == 0 else {
            throw StoreError("'\(file.directory)' cannot be entered (\(String(cString: strerror(errno))))")
        }
        return file
    }
}

/// `davit up`: makes and starts what a davit.yaml describes.
struct UpCommand: ParsableCommand {
    static let usualFile = "davit.yaml"
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Makes and starts the machines that davit.yaml describes.",
        discussion: """
            A machine that is there already keeps its disk; what has changed in the file holds from its next start on. Relative paths are meant
            from the file's directory.

            Below 'machines:' stand names, and below each of these keys:
            \(MachineFileKey.all.map { "  \($0.name): \($0.summary)" }.joined(separator: "\n"))
            """)

    @OptionGroup var file: MachineFileFlag
    @Flag(help: "Looks at the file, and starts nothing.")
    var check = false
    @Flag(help: "Prints the file's JSON schema, for editors.")
    var schema = false
    @Argument(help: "The machines. (default: all in the file)")
    var names: [String] = []

    func run() throws {
        if schema { return print(MachineFileKey.schema) }
        let file = try file.read()
        let machines = try file.chosen(names)
        // Nothing is made while something is wrong with one of them.
        let all = try machines.map { (description: $0, flags: try file.flags(of: $0)) }
        if check { return }
        let store = try MachineStore()
        let known = try Set(store.all().map(\.name))
        try Self.each(all) { machine in
            try file.at(machine.description) {
                if known.contains(machine.description.name) {
                    try Self.startAgain(machine.description, machine.flags, of: file, in: store)
                } else {
                    try Self.startAnew(machine.description, machine.flags, of: file)
                }
            }
            print(machine.description.name)
        }
    }

    private static func startAnew(
        _ description: MachineFile.Description, _ flags: MachineFileFlags, of file: MachineFile
    )
        throws
    {
        let machine = try StoredMachines.create(
            name: description.name, flags.machine, image: StoredMachines.image(description.image),
            cloudInit: description.cloudInit, keeping: flags.keeping, environment: description.environment,
            file: file.path)
        do { _ = try MachineLauncher.start(machine) } catch {
            // A machine that has never run is no use to anybody.
            try? StoredMachines.remove(machine)
            throw error
        }
    }

    private static func startAgain(
        _ description: MachineFile.Description, _ flags: MachineFileFlags, of file: MachineFile, in store: MachineStore
    ) throws {
        let machine = try DownCommand.find(description, of: file, in: store)
        if let image = try StoredMachines.image(description.image)?.id, image != machine.configuration.image {
            say(
                "machine '\(machine.name)' goes on with its disk, which began from another image; remove it to begin anew"
            )
        }
        var configuration = machine.configuration
        configuration.arguments = flags.machine.arguments
        configuration.environment = description.environment
        configuration.restart = try flags.keeping.policy()
        let hasChanged = configuration != machine.configuration
        if case .running = machine.status {
            if hasChanged { say("machine '\(machine.name)' runs as it was before the file changed; stop it first") }
            return
        }
        if hasChanged {
            try store.reconfigure(machine, configuration, holding: machine.lock())
        }
        _ = try MachineLauncher.start(machine)
    }

    private static func say(_ line: String) { DavitCommand.complain(line) }

    /// Does the same for several: all are tried, each failure gets its line.
    static func each<Element>(_ elements: [Element], _ body: (Element) throws -> Void) throws {
        var failure: (any Error)?
        for element in elements {
            do { try body(element) } catch {
                if let failure { DavitCommand.complain("\(failure)") }
                failure = error
            }
        }
        if let failure { throw failure }
    }
}

/// `davit down`: stops what `davit up` has started.
struct DownCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "Stops the machines that davit.yaml describes.",
        discussion: "Their disks stay, unless --remove says otherwise.")

    @OptionGroup var file: MachineFileFlag
    @Option(name: [.customShort("t"), .customLong("time")], help: "How many seconds a guest may take. (default: 60)")
    var seconds = 60
    @Flag(name: [.customLong("remove"), .customLong("rm")], help: "Removes the machines, and what is on their disks.")
    var isRemoved = false
    @Argument(help: "The machines. (default: all in the file)")
    var names: [String] = []

    func validate() throws { try StopCommand.check(seconds: seconds) }

    func run() throws {
        let file = try file.read()
        let store = try MachineStore()
        let known = try Set(store.all().map(\.name))
        // What was started last may need what was started first.
        try UpCommand.each(try file.chosen(names).reversed().filter { known.contains($0.name) }) { description in
            try file.at(description) {
                let machine = try Self.find(description, of: file, in: store)
                try StopCommand.stop(machine, seconds: seconds)
                if isRemoved { try StoredMachines.remove(machine) }
            }
            print(description.name)
        }
    }

    /// The machine, if it is this file's.
    static func find(_ description: MachineFile.Description, of file: MachineFile, in store: MachineStore) throws
        -> MachineDirectory
    {
        let machine = try store.find(description.name)
        guard machine.configuration.file == file.path else {
            let owner = machine.configuration.file.map { "'\($0)'" } ?? "'davit run' or 'davit create'"
            throw StoreError("there is a machine '\(machine.name)' already, made by \(owner); choose another name")
        }
        return machine
    }
}
