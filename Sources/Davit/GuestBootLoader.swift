import VMRuntime

/// How a guest's kernel is found and entered: `LinuxBootLoader`, `DiskBootLoader` or `MultibootLoader`.
public protocol GuestBootLoader: Sendable {
    /// The kernel's path; nil if it is on the first disk.
    var kernelPath: String? { get }
    /// Sets what the machine loads besides the kernel.
    func configure(_ machine: inout MachineConfiguration)
}

/// A Linux kernel, or another one with a PVH entry: bzImage or ELF.
public struct LinuxBootLoader: GuestBootLoader {
    public var kernel: String
    /// The initial RAM disk's path.
    public var initrd: String?
    public var commandLine: String

    public init(kernel: String, initrd: String? = nil, commandLine: String = "") {
        self.kernel = kernel
        self.initrd = initrd
        self.commandLine = commandLine
    }

    public var kernelPath: String? { kernel }

    public func configure(_ machine: inout MachineConfiguration) {
        machine.initrd = initrd
        machine.commandLine = commandLine
    }
}

/// The Linux system on the first disk: its newest kernel, or what its boot loader's configuration names, with the initrd that goes with it.
public struct DiskBootLoader: GuestBootLoader {
    /// Goes behind the command line that the disk has.
    public var commandLine: String

    public init(commandLine: String = "") { self.commandLine = commandLine }

    public var kernelPath: String? { nil }

    public func configure(_ machine: inout MachineConfiguration) { machine.commandLine = commandLine }
}

/// A kernel that follows the Multiboot specification, version 1.
public struct MultibootLoader: GuestBootLoader {
    public var kernel: String
    public var commandLine: String
    public var modules: [MachineConfiguration.Module]

    public init(kernel: String, commandLine: String = "", modules: [MachineConfiguration.Module] = []) {
        self.kernel = kernel
        self.commandLine = commandLine
        self.modules = modules
    }

    public var kernelPath: String? { kernel }

    public func configure(_ machine: inout MachineConfiguration) {
        machine.commandLine = commandLine
        machine.modules = modules
    }
}
