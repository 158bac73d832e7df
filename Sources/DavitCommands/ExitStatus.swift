import ArgumentParser
import Davit
import VMRuntime

/// What the process's exit status says. README.md documents the same numbers.
enum ExitStatus {
    /// A kept machine is missing, or in a state in which that cannot be done.
    static let noSuchState: Int32 = 1
    /// A flag that is unknown, incomplete, given twice or clashes with another.
    static let usage: Int32 = 64
    static let guestPanic: Int32 = 80
    static let tripleFault: Int32 = 81
    static let haltedForever: Int32 = 82
    static let engineFailure: Int32 = 70
    static let consoleLost: Int32 = 74
    static let unavailable: Int32 = 69
    /// Davit's own failure where the status is otherwise that of a program in the guest.
    static let noCommand: Int32 = 125

    static func status(of error: MachineError) -> Int32 {
        switch error.kind {
        case .image: 65
        case .file: 66
        case .unavailable: unavailable
        case .host: 71
        case .configuration: 78
        }
    }

    /// The status and what to tell the user, if anything.
    static func status(of outcome: MachineOutcome) -> (status: Int32, message: String?) {
        switch outcome {
        case .poweredOff, .reset, .stopped(.requested): (0, nil)
        case .guestPanicked:
            (guestPanic, "ended because the guest panicked; with panic=-1 on its command line Linux reboots instead")
        case .debugExit(let code): (Int32(truncatingIfNeeded: (code << 1 | 1) & 0xFF), nil)
        case .tripleFault(let report): (tripleFault, "the guest triple-faulted\n\(report)")
        case .haltedForever(let report):
            (haltedForever, "the guest halted with interrupts off, and nothing can wake it\n\(report)")
        case .engineFailed(let report): (engineFailure, "the engine cannot go on\n\(report)")
        case .stopped(.signal(let number)): (128 + number, "stopped by signal \(number)")
        case .stopped(.consoleLost(let reason)):
            (consoleLost, "nobody takes the guest's serial output any more (\(reason)); --serial none runs without")
        }
    }
}
