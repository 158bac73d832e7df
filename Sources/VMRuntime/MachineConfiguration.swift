import HostLinux
import VirtioDevices
public import MachineModel

/// What a machine is to be, as plain values. `validate` says whether it can be.
public struct MachineConfiguration: Equatable, Sendable {
    /// A file for the boot protocol, with what is said to it.
    public struct Module: Equatable, Sendable {
        public var path: String
        /// Its command line, as Multiboot hands it over.
        public var arguments: String

        public init(path: String, arguments: String = "") {
            self.path = path
            self.arguments = arguments
        }
    }

    /// What the machine does when the guest resets it.
    public enum ResetAction: Equatable, Sendable {
        /// Starts over with the same kernel.
        case restart
        /// Ends.
        case end
    }

    /// Least RAM, in bytes: a kernel is loaded at 1 MiB.
    public static let minimumMemory: UInt64 = 4 << 20
    public static let maximumCPUs = 64
    public static let maximumSerialPorts = 4

    /// RAM in bytes, a multiple of 4 KiB.
    public var memorySize: UInt64 = 512 << 20
    /// Settings of `Catalog.memories`.
    public var memory = ComponentChoice("ram")
    public var cpuCount = 1
    /// Settings of `Catalog.processors`.
    public var processors = ComponentChoice("vcpus")
    public var features = ProcessorFeatures.host
    public var engine = ComponentChoice("auto")
    /// Path of a bzImage, an ELF with a PVH note, or a Multiboot kernel. Nil: a Linux kernel that lies on the first disk, with its initrd.
    public var kernel: String?
    /// Path of the initial RAM disk for Linux.
    public var initrd: String?
    public var commandLine = ""
    /// Multiboot modules, in order.
    public var modules: [Module] = []
    /// COM1 to COM4, in order.
    public var serialPorts = [ComponentChoice("stdio")]
    /// Ports of the virtio console, in order; without any there is no such device.
    public var consolePorts: [ComponentChoice] = []
    /// Disks, in order: the guest's vda, vdb and so on.
    public var disks: [ComponentChoice] = []
    /// Network cards, in order.
    public var networks: [ComponentChoice] = []
    /// Directories of the host's, in order.
    public var sharedFolders: [SharedFolder] = []
    /// Devices beyond those that every machine has.
    public var devices: [ComponentChoice] = []
    public var resetAction = ResetAction.restart
    public var trace: TraceOptions = []
    /// Where GDB is waited for, with settings of `DebuggerChoice`; nil: nowhere.
    public var debugger: ComponentChoice?
    /// The engine's figures go to the log when the guest ends.
    public var printsStatistics = false

    public init(kernel: String?) { self.kernel = kernel }

    /// Throws what is wrong with the settings themselves; files are looked at when the machine is made.
    public func validate() throws(MachineError) {
        try validateMemory()
        guard (1...Self.maximumCPUs).contains(cpuCount) else {
            throw MachineError(.configuration, "--cpus \(cpuCount) is out of range; give 1 to \(Self.maximumCPUs)")
        }
        if kernel == nil, initrd != nil {
            throw MachineError(
                .configuration, "--initrd without --kernel: give both, or neither to boot what is on the first disk")
        }
        if kernel == nil, disks.isEmpty {
            throw MachineError(
                .configuration, "neither --kernel nor --disk is given: there is nothing to boot; give one of them")
        }
        if initrd != nil, let module = modules.first {
            throw MachineError(
                .configuration,
                "--initrd and --module '\(module.path)' clash: Linux takes the first, Multiboot kernels the second; leave one"
            )
        }
        guard serialPorts.count <= Self.maximumSerialPorts else {
            throw MachineError(
                .configuration,
                "--serial is given \(serialPorts.count) times; a PC has \(Self.maximumSerialPorts) serial ports at most"
            )
        }
        guard serialPorts.count(where: { $0.name == "stdio" }) <= 1 else {
            throw MachineError(
                .configuration, "--serial stdio is given twice; standard input and output serve one port")
        }
        try validateConsolePorts()
        try Catalog.memories.validate(memory)
        try Catalog.processors.validate(processors)
        try Catalog.engines.validate(engine)
        for port in serialPorts { try Catalog.serialPorts.validate(port) }
        for disk in disks { try Catalog.disks.validate(disk) }
        guard virtioMMIOCount <= PlatformLayout.VirtioMMIO.maximumCount else {
            throw MachineError(
                .configuration,
                "transport=mmio is given \(virtioMMIOCount) times; a machine has room for \(PlatformLayout.VirtioMMIO.maximumCount)"
            )
        }
        for network in networks { try Catalog.networks.validate(network) }
        for device in devices { try Catalog.devices.validate(device) }
        if let debugger { _ = try DebuggerChoice(debugger) }
        for folder in sharedFolders { try folder.validate() }
        let tags = sharedFolders.map(\.tag)
        if let twice = tags.first(where: { tag in tags.count { $0 == tag } > 1 }) {
            throw MachineError(.configuration, "--volume: the tag '\(twice)' is given twice; choose another one")
        }
    }

    private func validateConsolePorts() throws(MachineError) {
        for port in consolePorts { try Catalog.consolePorts.validate(port) }
        guard consolePorts.count <= VirtioConsole.maximumPorts else {
            throw MachineError(
                .configuration,
                "--console is given \(consolePorts.count) times; a console has \(VirtioConsole.maximumPorts) ports at most"
            )
        }
        guard (serialPorts + consolePorts).count(where: { $0.name == "stdio" }) <= 1 else {
            throw MachineError(
                .configuration,
                "--console stdio clashes with another port on standard input and output, which serve one port")
        }
        let names = consolePorts.compactMap { $0.settings[Catalog.consoleName] }.filter { !$0.isEmpty }
        for name in names {
            guard name.utf8.count <= VirtioConsole.maximumName, !name.contains("/"), !name.contains("\0") else {
                throw MachineError(
                    .configuration,
                    "--console: name='\(name)' cannot be; give at most \(VirtioConsole.maximumName) bytes without a slash"
                )
            }
            guard names.count(where: { $0 == name }) == 1 else {
                throw MachineError(.configuration, "--console: name='\(name)' is given twice; choose another one")
            }
        }
    }

    /// Virtio devices that are reached without PCI.
    var virtioMMIOCount: Int {
        (disks + networks + devices).count { $0.settings["transport"] == VirtioTransportKind.mmio.rawValue }
    }

    private func validateMemory() throws(MachineError) {
        let written = "--memory \(ByteCount.describe(memorySize))"
        guard memorySize >= Self.minimumMemory else {
            throw MachineError(
                .configuration,
                "\(written) is too little; give \(ByteCount.describe(Self.minimumMemory)) or more, for instance 512M")
        }
        guard memorySize % 4096 == 0 else {
            throw MachineError(
                .configuration, "\(written) is not whole pages; give a multiple of 4 KiB, for instance 512M")
        }
        let host = HostInformation.memorySize
        guard host == 0 || memorySize <= host else {
            throw MachineError(
                .configuration, "\(written) is more than this host has; give at most \(host >> 20)M")
        }
    }
}
