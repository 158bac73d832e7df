import ArgumentParser
import Davit
import MachineModel
import VMRuntime

extension MachineFlags {
    /// Puts the flags together; throws `ValidationError` for flags that are wrong as such, `MachineError` for what they ask for.
    ///
    /// `rootDisk` is a qcow2 image over another, of a system made by `davit image`: then there is a network too, and more memory, unless
    /// the flags say otherwise.
    func makeConfiguration(rootDisk: String? = nil) throws -> VirtualMachineConfiguration {
        let kernel = try single(kernel, "--kernel")
        let commandLine = try single(cmdline, "--cmdline (or --append)") ?? ""
        let initrd = try single(initrd, "--initrd (or --initramfs)")
        var configuration = VirtualMachineConfiguration(
            bootLoader: try makeBootLoader(
                kernel: kernel, initrd: initrd, commandLine: commandLine, hasDisk: rootDisk != nil || !disk.isEmpty))
        if rootDisk != nil { configuration.memorySize = 1 << 30 }
        if let text = try single(memory, "--memory") {
            let choice = try ComponentChoice(parsing: text, flag: "--memory")
            configuration.memory.settings = choice.settings
            guard let size = ByteCount.parse(choice.name) else {
                throw MachineError(
                    .configuration,
                    "--memory '\(choice.name)' is not a size; give a number of MiB, or one with K, M, G or T, such as 512M"
                )
            }
            configuration.memorySize = size
        }
        if let text = try single(cpus, "--cpus") {
            let choice = try ComponentChoice(parsing: text, flag: "--cpus")
            configuration.processors.settings = choice.settings
            guard let count = Int(choice.name) else {
                throw MachineError(
                    .configuration,
                    "--cpus '\(choice.name)' is not a number; give 1 to \(MachineConfiguration.maximumCPUs)")
            }
            configuration.cpuCount = count
        }
        if let text = try single(cpu, "--cpu") {
            guard let features = ProcessorFeatures(rawValue: text) else {
                let names = ProcessorFeatures.allCases.map(\.rawValue).joined(separator: " or ")
                throw MachineError(.configuration, "--cpu '\(text)' is not known; give \(names)")
            }
            configuration.features = features
        }
        if let text = try single(engine, "--engine") {
            configuration.engine = try ComponentChoice(parsing: text, flag: "--engine")
        }
        configuration.disks = try disk.map { try ComponentChoice(parsingPath: $0, as: "image", flag: "--disk") }
        if let rootDisk {
            let root = ComponentChoice("image", settings: ["path": rootDisk, "format": "qcow2", "backing": "on"])
            configuration.disks.insert(root, at: 0)
        }
        configuration.networks = try makeNetworks(hasDefault: rootDisk != nil)
        configuration.sharedFolders = try volume.enumerated().map { number, text in
            try SharedFolder(parsing: text, number: number)
        }
        configuration.devices = try device.map { try ComponentChoice(parsing: $0, flag: "--device") }
        if !serial.isEmpty {
            configuration.serialPorts = try serial.map {
                SerialPortConfiguration(attachment: .init(try ComponentChoice(parsing: $0, flag: "--serial")))
            }
        }
        configuration.consolePorts = try console.map {
            ConsolePortConfiguration(attachment: .init(try ComponentChoice(parsing: $0, flag: "--console")))
        }
        // Standard input and output serve one port: a console that is asked for, before a serial port that is not.
        if serial.isEmpty && configuration.consolePorts.contains(where: { $0.attachment.choice.name == "stdio" }) {
            configuration.serialPorts = [SerialPortConfiguration(attachment: .nothing)]
        }
        configuration.trace = try traceOptions()
        configuration.debugger = try single(gdb, "--gdb").map { try ComponentChoice(parsing: $0, flag: "--gdb") }
        configuration.resetAction = noReboot ? .end : .restart
        configuration.printsStatistics = stats
        return configuration
    }

    /// Published ports go to the first user network; without any, there is one.
    private func makeNetworks(hasDefault: Bool) throws -> [ComponentChoice] {
        var networks = try network.map { try ComponentChoice(parsing: $0, flag: "--network") }
        if networks.isEmpty && (hasDefault || !publish.isEmpty) { networks = [ComponentChoice("user")] }
        guard !publish.isEmpty else { return networks }
        guard let place = networks.firstIndex(where: { $0.name == "user" }) else {
            throw ValidationError("--publish goes with --network user: add that, or leave --publish out")
        }
        let ports = try publish.map(Self.portSetting)
        networks[place].settings["publish"] =
            ([networks[place].settings["publish"]].compactMap(\.self) + ports).joined(separator: "+")
        return networks
    }

    /// `8080:80/udp` as --network has it, `udp:8080:80`.
    private static func portSetting(_ text: String) throws -> String {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        switch (parts.count, parts.last) {
        case (1, _), (2, "tcp"): return String(parts[0])
        case (2, "udp"): return "udp:" + parts[0]
        default:
            throw ValidationError("--publish '\(text)' is not a port; write HOST:GUEST, such as 8080:80 or 5353:53/udp")
        }
    }

    private func makeBootLoader(
        kernel: String?, initrd: String?, commandLine: String, hasDisk: Bool
    ) throws -> any GuestBootLoader {
        guard let kernel else {
            guard hasDisk else {
                throw ValidationError(
                    "--kernel is missing: give the path of the kernel to boot, or --disk with a system that has one")
            }
            guard initrd == nil, module.isEmpty else {
                throw ValidationError(
                    "\(initrd == nil ? "--module" : "--initrd") goes with --kernel: give that too, or neither to boot what is on the first disk"
                )
            }
            return DiskBootLoader(commandLine: commandLine)
        }
        guard !module.isEmpty else {
            return LinuxBootLoader(kernel: kernel, initrd: initrd, commandLine: commandLine)
        }
        guard initrd == nil else {
            throw ValidationError(
                "--initrd and --module clash: Linux takes the first, Multiboot kernels the second; leave one")
        }
        return MultibootLoader(kernel: kernel, commandLine: commandLine, modules: module.map(Self.module))
    }

    /// A log level, a file, or both.
    func makeLog() throws -> Log {
        let levels = log.compactMap(LogLevel.init(name:))
        let files = log.filter { LogLevel(name: $0) == nil }
        guard levels.count <= 1, files.count <= 1 else {
            throw ValidationError("--log is given \(log.count) times: give one level and one file at most")
        }
        let level = levels.first ?? (trace.isEmpty ? .warning : .debug)
        if let file = files.first { return try Log(level: level, path: file) }
        return Log(level: level)
    }

    private func single(_ values: [String], _ flag: String) throws -> String? {
        guard values.count <= 1 else { throw ValidationError("\(flag) is given \(values.count) times: leave one") }
        return values.first
    }

    private static func module(_ text: String) -> MachineConfiguration.Module {
        let parts = text.split(separator: " ", maxSplits: 1)
        return .init(path: parts.first.map(String.init) ?? "", arguments: parts.count > 1 ? String(parts[1]) : "")
    }

    private func traceOptions() throws -> TraceOptions {
        let kinds: [String: TraceOptions] = [
            "io": .io, "exceptions": .exceptions, "interrupts": .interrupts, "instructions": .instructions,
        ]
        var options: TraceOptions = []
        for name in trace.flatMap({ $0.split(separator: ",", omittingEmptySubsequences: false) }) {
            guard let option = kinds[String(name)] else {
                throw ValidationError(
                    "--trace '\(name)' is not known: choose from \(kinds.keys.sorted().joined(separator: ", "))")
            }
            options.insert(option)
        }
        return options
    }
}
