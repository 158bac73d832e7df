/// What the tables tell of a machine.
public struct ACPIPlatform: Sendable {
    /// From 1 to `maximumProcessorCount`; a processor's number is its APIC id.
    public var processorCount: Int
    /// 0 for COM1 to 3 for COM4.
    public var serialPorts: Set<Int>
    public var hasKeyboard: Bool
    public var hasHPET: Bool
    public var hasPvpanic: Bool
    /// Virtio devices without PCI, in the windows from `PlatformLayout.VirtioMMIO.first` on.
    public var virtioCount: Int
    /// Further objects for `\_SB`.
    public var devices: [AML]
    /// Further tables.
    public var tables: [ACPITable]

    /// What the tables' place below 1 MiB has room for.
    public static let maximumProcessorCount = 1024

    public init(
        processorCount: Int, serialPorts: Set<Int> = [0], hasKeyboard: Bool = true, hasHPET: Bool = true,
        hasPvpanic: Bool = true, virtioCount: Int = 0, devices: [AML] = [], tables: [ACPITable] = []
    ) {
        self.processorCount = processorCount
        self.serialPorts = serialPorts
        self.hasKeyboard = hasKeyboard
        self.hasHPET = hasHPET
        self.hasPvpanic = hasPvpanic
        self.virtioCount = virtioCount
        self.devices = devices
        self.tables = tables
    }
}

/// A machine that the tables cannot describe.
public enum ACPIError: Error, Equatable, Sendable, CustomStringConvertible {
    case processorCount(Int)
    case serialPort(Int)
    /// The tables take so many bytes.
    case tooLarge(Int)

    public var description: String {
        switch self {
        case .processorCount(let count):
            "ACPI tables for \(count) processors: give 1 to \(ACPIPlatform.maximumProcessorCount)"
        case .serialPort(let number): "there is no serial port COM\(number &+ 1): COM1 to COM4 exist"
        case .tooLarge(let size):
            "ACPI tables of \(size) bytes do not fit below 1 MiB: give fewer processors or devices"
        }
    }
}
