import ArgumentParser
import Glibc
import MachineStore

/// How verbs print what they know.
enum OutputFormat: String, ExpressibleByArgument, CaseIterable {
    case table
    case json
}

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists the machines that run, or all.", aliases: ["ls", "ps"])

    @Flag(name: [.short, .long], help: "Those too that do not run.")
    var all = false
    @Flag(name: [.short, .long], help: "Names only.")
    var quiet = false
    @Option(help: "table or json.")
    var format = OutputFormat.table

    func run() throws {
        let machines = try MachineStore().all().map(MachineReport.init).filter { all || $0.isRunning }
        if quiet {
            for machine in machines { print(machine.machine.name) }
        } else if format == .json {
            print(JSON.array(machines.map { $0.json() }))
        } else {
            print(Self.table([["NAME", "STATE", "PID", "CREATED"]] + machines.map(\.row)))
        }
    }

    /// Columns as wide as their widest cell.
    static func table(_ rows: [[String]]) -> String {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            return String(cells.joined(separator: "   ").reversed().drop { $0 == " " }.reversed())
        }.joined(separator: "\n")
    }
}

/// What is known of a machine at this moment.
struct MachineReport {
    let machine: MachineDirectory
    let status: MachineDirectory.Status
    /// `created`, `starting`, `running`, `paused`, `exited` or `died`.
    let state: String
    let process: pid_t?

    init(_ machine: MachineDirectory) {
        self.machine = machine
        status = machine.status
        guard case .running = status else {
            process = nil
            state =
                switch status {
                case .created, .running: "created"
                case .ended: "exited"
                case .died: "died"
                }
            return
        }
        let control = ControlClient(machine)
        process = control?.process
        state = control?.ask(.status) ?? "starting"
    }

    /// As the guest tells them; none if it does not answer soon.
    var addresses: [String] { state == "running" ? Guest(machine: machine).addresses : [] }

    var isRunning: Bool { if case .running = status { true } else { false } }

    var row: [String] {
        var state = state
        if case .ended(let end) = status { state += " (\(end.status))" }
        return [machine.name, state, process.map { "\($0)" } ?? "-", Self.ago(machine.configuration.created)]
    }

    /// `asksGuest` for what the guest alone can tell, which may take its time.
    func json(asksGuest: Bool = false) -> JSON {
        var end: EndRecord?
        if case .ended(let record) = status { end = record }
        return JSON([
            "name": .string(machine.name), "state": .string(state), "pid": process.map { .number(Int64($0)) } ?? .null,
            "created": .number(machine.configuration.created), "started": machine.started.map(JSON.number) ?? .null,
            "end": end?.json ?? .null, "path": .string(machine.path),
            "directory": .string(machine.configuration.directory),
            "arguments": .array(machine.configuration.arguments.map(JSON.string)),
            "image": machine.configuration.image.map(JSON.string) ?? .null,
            "removeAtEnd": .bool(machine.configuration.isRemovedAtEnd),
            "environment": .array(machine.configuration.environment.map(JSON.string)),
            "restart": .string(machine.configuration.restart.description), "restarts": .number(machine.restarts),
            "file": machine.configuration.file.map(JSON.string) ?? .null,
            "addresses": .array(asksGuest ? addresses.map(JSON.string) : []),
        ])
    }

    private static func ago(_ time: Int64) -> String {
        let seconds = max(Int64(Glibc.time(nil)) &- time, 0)
        let units: [(Int64, String)] = [(86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")]
        let (size, unit) = units.first { seconds >= $0.0 } ?? (1, "second")
        let count = seconds / size
        return "\(count) \(unit)\(count == 1 ? "" : "s") ago"
    }
}

struct InspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Tells all that is known of machines.")

    @Option(help: "table or json.")
    var format = OutputFormat.json
    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        let reports = try names.map { MachineReport(try StoredMachines.find($0)).json(asksGuest: true) }
        guard format == .table else { return print(JSON.array(reports)) }
        for report in reports {
            guard case .object(let members) = report else { continue }
            print(ListCommand.table(members.map { [$0.name, $0.value.text ?? "\($0.value)"] }))
        }
    }
}
