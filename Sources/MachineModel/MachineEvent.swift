/// Something that ends the machine's run, or starts it over.
public enum MachineEvent: Equatable, Sendable {
    /// ACPI S5.
    case powerOff
    /// The keyboard controller's reset line, ACPI's reset register, port 0xCF9, or a triple fault.
    case reset(ResetCause)
    /// The guest said through pvpanic that it has panicked.
    case guestPanic
    /// A write to the debug-exit port: the exit status is `(code << 1) | 1`.
    case debugExit(code: UInt32)
}

public enum ResetCause: Equatable, Sendable {
    case keyboardController
    case resetRegister
    /// The guest has not reloaded its watchdog in time.
    case watchdog
    case tripleFault(report: String)
}

/// Where devices report such events. Any thread may call; it returns at once.
public protocol MachineControl: AnyObject, Sendable {
    func report(_ event: MachineEvent)
}
