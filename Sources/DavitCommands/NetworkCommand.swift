import ArgumentParser
import MachineStore
import VMRuntime

/// `davit network`: what leads to machines. Networks have no life of their own: each card's is its machine's.
struct NetworkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network", abstract: "Tells by which cards, ports and addresses machines are reached.",
        subcommands: [NetworkListCommand.self, NetworkInspectCommand.self])
}

/// A network card as its machine's flags describe it.
private struct NetworkCard {
    let choice: ComponentChoice

    static func all(of machine: MachineDirectory) throws -> [NetworkCard] {
        let flags = try MachineFlags.parse(machine.configuration.arguments)
        return try flags.makeConfiguration(rootDisk: machine.configuration.image).networks.map(NetworkCard.init)
    }

    /// A port of the host's that leads to one of the guest's.
    struct Port {
        var transport = "tcp"
        /// Nil for all of the host's.
        var address: String?
        let host: String
        let guest: String

        /// As the catalog has it: `[udp:][ADDRESS:]HOST:GUEST`.
        init?(_ text: Substring) {
            var parts = text.split(separator: ":").map(String.init)
            if let first = parts.first, first == "tcp" || first == "udp" { transport = parts.removeFirst() }
            guard parts.count >= 2 else { return nil }
            (host, guest) = (parts[parts.count - 2], parts[parts.count - 1])
            if parts.count == 3 { address = parts[0] }
        }

        var description: String { "\(address.map { $0 + ":" } ?? "")\(host)->\(guest)/\(transport)" }

        var json: JSON {
            JSON([
                "transport": .string(transport), "address": address.map(JSON.string) ?? .null,
                "host": Int64(host).map(JSON.number) ?? .null, "guest": Int64(guest).map(JSON.number) ?? .null,
            ])
        }
    }

    var ports: [Port] { (choice.settings["publish"] ?? "").split(separator: "+").compactMap(Port.init) }

    var json: JSON {
        let settings = choice.settings.filter { $0.key != "publish" }.sorted { $0.key < $1.key }
        return JSON([
            "network": .string(choice.name), "ports": .array(ports.map(\.json)),
            "settings": .object(settings.map { JSON.Member(name: $0.key, value: .string($0.value)) }),
        ])
    }
}

struct NetworkListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Lists the network cards of the machines that run, or of all.", aliases: ["ls"])

    @Flag(name: [.short, .long], help: "Those of machines too that do not run.")
    var all = false
    @Option(help: "table or json.")
    var format = OutputFormat.table

    func run() throws {
        let reports = try MachineStore().all().map(MachineReport.init).filter { all || $0.isRunning }
        guard format == .table else { return print(JSON.array(try reports.map(NetworkInspectCommand.json))) }
        var rows = [["MACHINE", "NETWORK", "PORTS", "ADDRESSES"]]
        for report in reports {
            // Which of several cards an address is on is the guest's affair.
            var addresses = report.addresses.joined(separator: " ")
            for card in try NetworkCard.all(of: report.machine) {
                let ports = card.ports.map(\.description).joined(separator: " ")
                rows.append([
                    report.machine.name, card.choice.name, ports.isEmpty ? "-" : ports,
                    addresses.isEmpty ? "-" : addresses,
                ])
                addresses = ""
            }
        }
        print(ListCommand.table(rows))
    }
}

struct NetworkInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Tells all that is known of machines' network cards.")

    @Argument(help: "The machines.", completion: .machines)
    var names: [String]

    func run() throws {
        print(JSON.array(try names.map { try Self.json(MachineReport(StoredMachines.find($0))) }))
    }

    static func json(_ report: MachineReport) throws -> JSON {
        JSON([
            "machine": .string(report.machine.name), "state": .string(report.state),
            "addresses": .array(report.addresses.map(JSON.string)),
            "cards": .array(try NetworkCard.all(of: report.machine).map(\.json)),
        ])
    }
}
