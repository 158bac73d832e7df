import MachineStore

/// What can be said of a machine in davit.yaml: most of it is what `davit run` has a flag for.
struct MachineFileKey {
    enum Kind {
        case text
        /// One, or a list of them.
        case texts
        case flag
        /// NAME=VALUE in a list, or a map.
        case environment
    }

    let name: String
    /// The flag that takes its values; nil for what is no part of the virtual machine itself.
    let flag: String?
    let kind: Kind
    let summary: String

    init(_ name: String, _ flag: String?, _ kind: Kind, _ summary: String) {
        (self.name, self.flag, self.kind, self.summary) = (name, flag, kind, summary)
    }

    static let image = "image"
    static let cloudInit = "cloud-init"

    static let all = [
        MachineFileKey(image, nil, .text, "The image whose system the machine runs, on a disk of its own."),
        MachineFileKey("kernel", "--kernel", .text, "The kernel's file, for a machine without an image."),
        MachineFileKey("initrd", "--initrd", .text, "Linux's initial RAM disk."),
        MachineFileKey("cmdline", "--cmdline", .text, "The kernel's command line."),
        MachineFileKey("modules", "--module", .texts, "Multiboot modules with their arguments."),
        MachineFileKey("memory", "--memory", .text, "RAM: a number of MiB, or with K, M, G or T."),
        MachineFileKey("cpus", "--cpus", .text, "Processors, 1 to 64."),
        MachineFileKey("cpu", "--cpu", .text, "The processors' features: host or baseline."),
        MachineFileKey("engine", "--engine", .text, "What runs the guest: auto, kvm or soft."),
        MachineFileKey("disks", "--disk", .texts, "Disks more: FILE,KEY=VALUE."),
        MachineFileKey("networks", "--network", .texts, "Network cards: NAME,KEY=VALUE."),
        MachineFileKey(
            "publish", "--publish", .texts, "Ports of the host that lead to the guest: [IP:]HOST:GUEST[/udp]."),
        MachineFileKey("volumes", "--volume", .texts, "Directories of the host's in the guest: HOST:GUEST[:ro]."),
        MachineFileKey("devices", "--device", .texts, "Devices more: NAME,KEY=VALUE."),
        MachineFileKey("serial", "--serial", .texts, "What COM1 to COM4 are plugged into."),
        MachineFileKey("consoles", "--console", .texts, "Where the virtio console's ports lead."),
        MachineFileKey("log", "--log", .texts, "How much is logged, or a file to log to."),
        MachineFileKey("trace", "--trace", .text, "What is traced to the log."),
        MachineFileKey("gdb", "--gdb", .text, "Where GDB is served."),
        MachineFileKey("stats", "--stats", .flag, "Log the engine's figures at the end."),
        MachineFileKey("no-reboot", "--no-reboot", .flag, "End when the guest resets the machine."),
        MachineFileKey(
            cloudInit, nil, .text, "A file with user-data for cloud-init in the guest, read when the machine is made."),
        MachineFileKey("env", nil, .environment, "What programs that are run in the guest find in their environment."),
        MachineFileKey(
            "restart", "--restart", .text,
            "Whether it begins again when it ends by itself: no, on-failure[:N], always, unless-stopped."),
    ]

    /// The JSON schema (draft 2020-12) of davit.yaml, for editors.
    static var schema: JSON {
        let machine = JSON([
            "type": .string("object"), "additionalProperties": .bool(false),
            "properties": .object(all.map { JSON.Member(name: $0.name, value: $0.schema) }),
        ])
        return JSON([
            "$schema": .string("https://json-schema.org/draft/2020-12/schema"),
            "title": .string("davit.yaml: machines for davit up"), "type": .string("object"),
            "required": .array([.string("machines")]), "additionalProperties": .bool(false),
            "properties": JSON([
                "machines": JSON([
                    "description": .string("Machines by their names."), "type": .string("object"),
                    "minProperties": .number(1),
                    "propertyNames": JSON(["pattern": .string("^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]),
                    "additionalProperties": machine,
                ])
            ]),
        ])
    }

    private var schema: JSON {
        let scalar = JSON.array([.string("string"), .string("number")])
        let list = JSON(["type": .string("array"), "items": JSON(["type": scalar])])
        let type: KeyValuePairs<String, JSON> =
            switch kind {
            case .text: ["description": .string(summary), "type": scalar]
            case .flag: ["description": .string(summary), "type": .string("boolean")]
            case .texts:
                ["description": .string(summary), "oneOf": .array([JSON(["type": scalar]), list])]
            case .environment:
                [
                    "description": .string(summary),
                    "oneOf": .array([
                        list, JSON(["type": .string("object"), "additionalProperties": JSON(["type": scalar])]),
                    ]),
                ]
            }
        return JSON(type)
    }
}
