public import MachineModel
import VMRuntime

/// What a virtual machine is to be, as plain values.
///
///     var configuration = VirtualMachineConfiguration(
///         bootLoader: LinuxBootLoader(kernel: "vmlinuz", initrd: "initrd.cpio", commandLine: "console=ttyS0"))
///     configuration.memorySize = 1 << 30
///     try configuration.validate()
public struct VirtualMachineConfiguration: Sendable {
    public var bootLoader: any GuestBootLoader
    /// RAM in bytes, a multiple of 4 KiB, 4 MiB or more.
    public var memorySize: UInt64 = 512 << 20
    /// What memory of the host's that is, as the catalog knows it.
    public var memory = ComponentChoice("ram")
    /// 1 to 64.
    public var cpuCount = 1
    /// Where they run, as the catalog knows it.
    public var processors = ComponentChoice("vcpus")
    public var features = ProcessorFeatures.host
    /// What runs the guest's instructions, by its name in the catalog.
    public var engine = ComponentChoice("auto")
    /// COM1 to COM4.
    public var serialPorts = [SerialPortConfiguration(attachment: .standardStreams)]
    /// Ports of the virtio console, in order: Linux's hvc0 and so on, and `/dev/virtio-ports/NAME`.
    public var consolePorts: [ConsolePortConfiguration] = []
    /// Disks, as the catalog knows them.
    public var disks: [ComponentChoice] = []
    /// Network cards, as the catalog knows them.
    public var networks: [ComponentChoice] = []
    /// Directories of the host's that the guest may use.
    public var sharedFolders: [SharedFolder] = []
    /// Devices that not every machine has, by their names in the catalog.
    public var devices: [ComponentChoice] = []
    public var resetAction = MachineConfiguration.ResetAction.restart
    /// What is traced to the log.
    public var trace: TraceOptions = []
    /// Where GDB is waited for: `1234`, `ip:1234` or `unix:path`, with the setting `wait`; nil: nowhere.
    public var debugger: ComponentChoice?
    /// The engine's figures go to the log when the guest ends.
    public var printsStatistics = false

    public init(bootLoader: any GuestBootLoader) { self.bootLoader = bootLoader }

    /// Throws what is wrong with the settings; files are looked at when the machine is made.
    public func validate() throws(MachineError) { try machine.validate() }

    var machine: MachineConfiguration {
        var machine = MachineConfiguration(kernel: bootLoader.kernelPath)
        bootLoader.configure(&machine)
        machine.memorySize = memorySize
        machine.memory = memory
        machine.cpuCount = cpuCount
        machine.processors = processors
        machine.features = features
        machine.engine = engine
        machine.serialPorts = serialPorts.map(\.attachment.choice)
        machine.consolePorts = consolePorts.map(\.choice)
        machine.disks = disks
        machine.networks = networks
        machine.sharedFolders = sharedFolders
        machine.devices = devices
        machine.resetAction = resetAction
        machine.trace = trace
        machine.debugger = debugger
        machine.printsStatistics = printsStatistics
        return machine
    }
}
