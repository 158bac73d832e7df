import ArgumentParser

/// What a machine is to be, as `davit run` and `davit create` take it.
struct MachineFlags: ParsableArguments {
    // Everything is parsed as a list of strings, so that a flag given twice is noticed and each mistake gets a sentence of our own.
    @Option(
        parsing: .unconditionalSingleValue,
        help: "The kernel: bzImage, ELF with a PVH entry, or Multiboot. (default: the Linux on the first disk)")
    var kernel: [String] = []

    @Option(
        name: [.customLong("initrd"), .customLong("initramfs")], parsing: .unconditionalSingleValue,
        help: "Linux's initial RAM disk.")
    var initrd: [String] = []

    @Option(
        name: [.customLong("cmdline"), .customLong("append")], parsing: .unconditionalSingleValue,
        help: "The kernel's command line.")
    var cmdline: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A Multiboot module with its arguments; repeatable.", valueName: "file args"))
    var module: [String] = []

    @Option(
        name: [.long, .customShort("m")], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("RAM: a number of MiB, or with K, M, G or T. (default: 512M)", valueName: "size,key=value"))
    var memory: [String] = []

    @Option(
        name: [.long, .customShort("c")], parsing: .unconditionalSingleValue,
        help: ArgumentHelp("Processors, 1 to 64. (default: 1)", valueName: "n,key=value"))
    var cpus: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "The processors' features: all that the host has, or what every engine has. (default: host)",
            valueName: "host|baseline"))
    var cpu: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("What runs the guest. (default: auto)", valueName: "name,key=value"))
    var engine: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A disk; repeatable.", valueName: "file,key=value"))
    var disk: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A network card; repeatable. (default: none)", valueName: "name,key=value"))
    var network: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp("A device more; repeatable.", valueName: "name,key=value"))
    var device: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "What the next of COM1 to COM4 is plugged into. (default: stdio)", valueName: "name,key=value"))
    var serial: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "What the next port of the virtio console leads to; with stdio, COM1 has nothing.",
            valueName: "name,key=value"))
    var console: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "How much is logged (error, warning, info, debug), or a file to log to; both by giving it twice.",
            valueName: "level|file"))
    var log: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "What is traced to the log: io, exceptions, interrupts, instructions.", valueName: "kind,..."))
    var trace: [String] = []

    @Option(
        parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "Where GDB is served, which the machine waits for before its first instruction unless wait=off.",
            valueName: "[ip:]port|unix:path"))
    var gdb: [String] = []

    @Flag(help: "Print the engine's figures at the end.")
    var stats = false

    @Flag(help: "End when the guest resets the machine, instead of starting over.")
    var noReboot = false

    @Option(
        name: [.customShort("p"), .customLong("publish")], parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A port of the host that leads to the guest, on --network user; repeatable.",
            valueName: "[ip:]host:guest[/udp]"))
    var publish: [String] = []

    @Option(
        name: [.customShort("v"), .customLong("volume")], parsing: .unconditionalSingleValue,
        help: ArgumentHelp(
            "A directory of the host's and where it is mounted in the guest, or the tag by which it is; repeatable.",
            valueName: "host:guest[:ro]"))
    var volume: [String] = []
}

extension MachineFlags {
    /// The flags as they were written, for a machine that is kept.
    var arguments: [String] {
        let options: [(String, [String])] = [
            ("--kernel", kernel), ("--initrd", initrd), ("--cmdline", cmdline), ("--module", module),
            ("--memory", memory),
            ("--cpus", cpus), ("--cpu", cpu), ("--engine", engine), ("--disk", disk), ("--network", network),
            ("--device", device),
            ("--serial", serial), ("--console", console), ("--log", log), ("--trace", trace), ("--gdb", gdb),
            ("--publish", publish),
            ("--volume", volume),
        ]
        return options.flatMap { flag, values in values.flatMap { [flag, $0] } }
            + (stats ? ["--stats"] : []) + (noReboot ? ["--no-reboot"] : [])
    }
}
