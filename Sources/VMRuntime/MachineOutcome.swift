/// How a machine's run ended.
public enum MachineOutcome: Equatable, Sendable {
    /// The guest switched the machine off (ACPI S5).
    case poweredOff
    /// The guest reset the machine, which was configured to end then.
    case reset
    /// The guest reported a panic and did not reset the machine.
    case guestPanicked
    /// The guest wrote to the debug-exit port.
    case debugExit(code: UInt32)
    /// The guest faulted while a double fault was being delivered; with the engine's report.
    case tripleFault(report: String)
    /// HLT with interrupts off and nothing that could wake the machine; with the engine's report.
    case haltedForever(report: String)
    /// The engine could not go on, with its report.
    case engineFailed(report: String)
    /// Stopped from outside.
    case stopped(StopReason)
}

public enum StopReason: Equatable, Sendable {
    /// By the program's own wish, or the user's at the console.
    case requested
    /// By a signal to the process.
    case signal(Int32)
    /// Nobody reads the guest's serial output any more; with what the host said.
    case consoleLost(String)
}
