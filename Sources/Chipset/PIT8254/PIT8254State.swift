import MachineModel

/// An 8254 with port 0x61 in a snapshot. Counters hold times of the clock, which a snapshot keeps too.
public struct PIT8254State: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    var counters: [PITCounter]
    var controlB: UInt8
    var output0: Bool
    var settledAt: UInt64
}

extension PIT8254 {
    public func saveState() -> PIT8254State {
        chip.withLock { chip in
            PIT8254State(
                counters: chip.counters, controlB: chip.controlB, output0: chip.output0, settledAt: chip.settledAt)
        }
    }

    /// Throws and changes nothing if no 8254 could be in this state.
    public func restore(_ state: PIT8254State) throws(InvalidDeviceState) {
        try state.checkVersion(of: "pit8254")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("pit8254", reason) }
        }
        try check(state.counters.count == 3, "\(state.counters.count) counters, not 3")
        try check(state.controlB & ~SystemControlB.writable == 0, "port 0x61 has read-only bits")
        for (i, counter) in state.counters.enumerated() {
            try check(counter.mode < 6, "counter \(i): there is no mode \(counter.mode)")
            try check(counter.access < 4, "counter \(i): there is no access \(counter.access)")
            for period in [counter.period, counter.nextPeriod] {
                try check(period.map { (1...65_536).contains($0) } ?? true, "counter \(i): a count out of range")
            }
        }
        try check(
            state.counters[0].gate && state.counters[1].gate
                && state.counters[2].gate == (state.controlB & SystemControlB.gate2 != 0), "gates are not as wired")
        chip.withLock { chip in
            chip.counters = state.counters
            chip.controlB = state.controlB
            chip.output0 = state.output0
            chip.settledAt = state.settledAt
            resume(&chip)
        }
    }
}
