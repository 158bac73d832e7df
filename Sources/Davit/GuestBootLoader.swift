import VMRuntime

/// How a guest's kernel is found and entered: `LinuxBootLoader` or `MultibootLoader`.
public protocol GuestBootLoader: Sendable {
    /// The kernel's path.
    var kernel: String { get }
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

    public func configure(_ machine: inout MachineConfiguration) {
        machine.initrd = initrd
        machine.commandLine = commandLine
    }
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

    public func configure(_ machine: inout MachineConfiguration) {
        machine.commandLine = commandLine
        machine.modules = modules
    }
}
