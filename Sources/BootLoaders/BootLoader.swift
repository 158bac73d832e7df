import GuestMemory
import X86

/// How a kernel is entered.
public enum BootProtocol: String, CaseIterable, Sendable {
    /// Linux's boot protocol, entered in 64-bit mode.
    case linux64
    /// Linux's boot protocol, entered in 32-bit protected mode.
    case linux32
    /// Xen's PVH: ELF with a note that names a 32-bit entry.
    case pvh
    /// Multiboot 1.
    case multiboot
    case multiboot2
}

/// A file that is put into memory beside the kernel, with the string that goes with it.
public struct BootModule: Sendable {
    public var file: KernelFile
    public var arguments: String

    public init(file: KernelFile, arguments: String = "") {
        self.file = file
        self.arguments = arguments
    }
}

/// What to boot.
public struct BootRequest: Sendable {
    public var kernel: KernelFile
    public var initrd: KernelFile?
    /// Multiboot and PVH take modules; the initrd is the first of them.
    public var modules: [BootModule]
    public var commandLine: String
    /// Where the ACPI tables' root pointer is.
    public var rsdp: GuestPhysicalAddress?
    /// Nil: by the kernel's content.
    public var bootProtocol: BootProtocol?
    /// Handed to Linux besides what the loader adds.
    public var setupData: [SetupData]
    /// Hands Linux 32 random bytes, fresh at every load.
    public var providesRandomSeed: Bool

    public init(
        kernel: KernelFile, initrd: KernelFile? = nil, modules: [BootModule] = [], commandLine: String = "",
        rsdp: GuestPhysicalAddress? = nil, bootProtocol: BootProtocol? = nil, setupData: [SetupData] = [],
        providesRandomSeed: Bool = true
    ) {
        self.kernel = kernel
        self.initrd = initrd
        self.modules = modules
        self.commandLine = commandLine
        self.rsdp = rsdp
        self.bootProtocol = bootProtocol
        self.setupData = setupData
        self.providesRandomSeed = providesRandomSeed
    }
}

/// A kernel in guest memory, ready to run.
public struct LoadedKernel: Sendable {
    /// The boot processor's state; the other processors wait for a SIPI.
    public let state: VCPUState
    public let bootProtocol: BootProtocol
    /// What the kernel says of itself, such as `bzImage 6.1.0-18-cloud-amd64`.
    public let kernel: String
    /// Everything that was put into memory, in ascending order.
    public let placements: [Placement]
    /// What the user may want to know, one line each.
    public let warnings: [String]

    /// Lines for the log: kernel and protocol, then a line for each placement.
    public var report: [String] {
        ["\(kernel), entered by \(bootProtocol.rawValue) at \(GuestPhysicalAddress(state.rip))"]
            + placements.map { "  \($0)" }
    }
}

/// Puts a kernel with all it needs into guest memory, as firmware and a boot loader would.
///
/// Memory may be dirty: whatever the kernel is promised to find zeroed is zeroed. So the same request can be loaded again on each
/// reset. ACPI tables are not the loader's business: they stand in the BIOS area, which the loader leaves alone.
public enum BootLoader {
    /// How much of a file the protocols look at to know it: Multiboot 2's search window is the largest.
    static let headSize = MultibootHeader.searchLimit2

    /// Throws one line for the user if the kernel cannot be booted; memory may then hold parts of it.
    public static func load(_ request: BootRequest, into memory: GuestMemory) throws(BootError) -> LoadedKernel {
        guard memory.size > MemoryMap.highMemory else {
            throw BootSource(flag: "--memory", file: "").error(
                .doesNotFit, "\(memory.size) bytes hold no kernel", mend: "give at least 2M, or 128M for Linux")
        }
        var request = request
        request.kernel = try request.kernel.unpacked()
        var boot = Boot(request: request, memory: memory)
        try boot.writing { () throws(NotRAM) in try BIOSDataArea.write(into: memory) }
        return try KernelImage.recognize(request).load(&boot)
    }
}
