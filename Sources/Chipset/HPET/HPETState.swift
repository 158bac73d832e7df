import MachineModel

/// An HPET in a snapshot. `settledAt` is a time of the clock, which a snapshot keeps too.
public struct HPETState: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    var configuration: UInt64
    var interruptStatus: UInt64
    var counter: UInt64
    var settledAt: UInt64
    var timers: [HPETTimer]
}

extension HPET {
    public func saveState() -> HPETState {
        chip.withLock { chip in
            settle(&chip)
            return HPETState(
                configuration: chip.configuration, interruptStatus: chip.interruptStatus, counter: chip.counter,
                settledAt: chip.settledAt, timers: chip.timers)
        }
    }

    /// Throws and changes nothing if no HPET could be in this state.
    public func restore(_ state: HPETState) throws(InvalidDeviceState) {
        try state.checkVersion(of: "hpet")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("hpet", reason) }
        }
        try check(state.timers.count == Self.timerCount, "\(state.timers.count) timers, not \(Self.timerCount)")
        try check(
            state.configuration & ~(HPETConfiguration.enable | HPETConfiguration.legacy) == 0,
            "the configuration register has reserved bits")
        try check(
            state.interruptStatus >> UInt64(Self.timerCount) == 0, "interrupt status of timers that are not there")
        for (i, timer) in state.timers.enumerated() {
            try check(
                timer.configuration & ~HPETTimerConfiguration.writable == 0,
                "timer \(i)'s configuration has reserved bits")
            try check(
                timer.isLevel || state.interruptStatus >> UInt64(i) & 1 == 0, "timer \(i) is edge-triggered with status"
            )
        }
        chip.withLock { chip in
            chip.configuration = state.configuration
            chip.interruptStatus = state.interruptStatus
            chip.counter = state.counter
            chip.settledAt = state.settledAt / Self.tick &* Self.tick
            chip.timers = state.timers
            connectLegacyLines(chip)
            settle(&chip)
            updateLevels(&chip)
            arm(&chip)
        }
    }
}
