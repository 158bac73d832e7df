import VMRuntime

/// The part of `davit help run` that comes from the catalog.
enum RunHelp {
    static var discussion: String {
        """
        On a terminal, Ctrl-A x ends the machine and Ctrl-A h lists other keys.

        \(describe("Memory", Catalog.memories))

        \(describe("Processors", Catalog.processors))

        \(describe("Engines", Catalog.engines))

        \(describe("Disks", Catalog.disks))

        \(describe("Networks", Catalog.networks))

        \(describe("Devices", Catalog.devices))

        \(describe("Serial ports", Catalog.serialPorts))

        \(describe("Console ports", Catalog.consolePorts))
        """
    }

    private static func describe<Context, Part>(_ title: String, _ section: CatalogSection<Context, Part>) -> String {
        var lines = ["\(title) (\(section.flag)):"]
        for entry in section.entries {
            lines.append("  \(entry.name): \(entry.summary)")
            for option in entry.options {
                let value = option.defaultValue.map { " (default: \($0))" } ?? ""
                lines.append("    \(option.name)=...: \(option.summary)\(value)")
            }
        }
        return lines.joined(separator: "\n")
    }
}
