import ArgumentParser
import Davit
import MachineModel
import VMRuntime

extension RunCommand {
    /// Puts the flags together; throws `ValidationError` for flags that are wrong as such, `MachineError` for what they ask for.
    func makeConfiguration() throws -> VirtualMachineConfiguration {
        let kernel = try single(kernel, "--kernel")
        let commandLine = try single(cmdline, "--cmdline (or --append)") ?? ""
        let initrd = try single(initrd, "--initrd (or --initramfs)")
        var configuration = VirtualMachineConfiguration(
            bootLoader: try makeBootLoader(kernel: kernel, initrd: initrd, commandLine: commandLine))
        if let text = try single(memory, "--memory") {
            guard let size = ByteCount.parse(text) else {
                throw MachineError(
                    .configuration,
                    "--memory '\(text)' is not a size; give a number of MiB, or one with K, M, G or T, such as 512M")
            }
            configuration.memorySize = size
        }
        if let text = try single(cpus, "--cpus") {
            guard let count = Int(text) else {
                throw MachineError(
                    .configuration, "--cpus '\(text)' is not a number; give 1 to \(MachineConfiguration.maximumCPUs)")
            }
            configuration.cpuCount = count
        }
        if let text = try single(engine, "--engine") {
            configuration.engine = try ComponentChoice(parsing: text, flag: "--engine")
        }
        configuration.disks = try disk.map { try ComponentChoice(parsingPath: $0, as: "image", flag: "--disk") }
        configuration.networks = try network.map { try ComponentChoice(parsing: $0, flag: "--network") }
        configuration.devices = try device.map { try ComponentChoice(parsing: $0, flag: "--device") }
        if !serial.isEmpty {
            configuration.serialPorts = try serial.map {
                SerialPortConfiguration(attachment: .init(try ComponentChoice(parsing: $0, flag: "--serial")))
            }
        }
        configuration.trace = try traceOptions()
        configuration.resetAction = noReboot ? .end : .restart
        configuration.printsStatistics = stats
        return configuration
    }

    private func makeBootLoader(
        kernel: String?, initrd: String?, commandLine: String
    ) throws -> any GuestBootLoader {
        guard let kernel else {
            guard !disk.isEmpty else {
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
