import MachineModel

/// An 8259 pair in a snapshot.
public struct PIC8259State: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    var primary: PIC8259Chip
    var secondary: PIC8259Chip
}

extension PIC8259 {
    public func saveState() -> PIC8259State {
        pair.withLock { PIC8259State(primary: $0.primary, secondary: $0.secondary) }
    }

    /// Throws and changes nothing if no 8259 pair could be in this state.
    public func restore(_ state: PIC8259State) throws(InvalidDeviceState) {
        try state.checkVersion(of: "pic8259")
        for (name, chip, writable) in [
            ("primary", state.primary, ELCR.writable1), ("secondary", state.secondary, ELCR.writable2),
        ] {
            func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
                if !holds { throw InvalidDeviceState("pic8259", "\(name): \(reason)") }
            }
            try check(chip.elcr & ~writable == 0, "ELCR has reserved bits")
            try check(chip.vectorBase & 7 == 0, "the vector base is no multiple of 8")
            try check(chip.icw4 & ~ICW4.stored == 0, "ICW4 has reserved bits")
            try check(chip.lowest < 8, "there is no input \(chip.lowest)")
        }
        pair.withLock { pair in
            pair.primary = state.primary
            pair.secondary = state.secondary
            update(&pair)
        }
    }
}
