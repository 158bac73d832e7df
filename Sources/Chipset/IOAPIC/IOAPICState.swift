import MachineModel

/// An I/O APIC in a snapshot.
public struct IOAPICState: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    public var ioregsel: UInt8
    public var id: UInt32
    public var entries: [UInt64]
    public var lines: UInt32
}

extension IOAPIC {
    public func saveState() -> IOAPICState {
        chip.withLock { IOAPICState(ioregsel: $0.ioregsel, id: $0.id, entries: $0.entries, lines: $0.lines) }
    }

    /// Throws and changes nothing if no I/O APIC could be in this state. Sends nothing: what was sent is in the local APICs' state.
    public func restore(_ state: IOAPICState) throws(InvalidDeviceState) {
        try state.checkVersion(of: "ioapic")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("ioapic", reason) }
        }
        let pins = PlatformLayout.ioapicPinCount
        try check(state.entries.count == pins, "\(state.entries.count) redirection entries, not \(pins)")
        try check(state.lines >> UInt32(pins) == 0, "lines beyond the last pin")
        try check(state.id & ~0x0F00_0000 == 0, "ID has reserved bits")
        for (pin, entry) in state.entries.enumerated() {
            try check(
                entry & ~(IOAPICEntry.writable | IOAPICEntry.remoteIRR) == 0, "entry \(pin) has reserved bits")
            try check(
                entry & IOAPICEntry.remoteIRR == 0 || entry & IOAPICEntry.level != 0,
                "entry \(pin) is edge-triggered with remote IRR set")
        }
        chip.withLock { chip in
            for (pin, entry) in state.entries.enumerated() {
                bus.setLevelTriggered(Self.levelTriggered(entry), pin: pin)
            }
            chip = Chip(ioregsel: state.ioregsel, id: state.id, entries: state.entries, lines: state.lines)
        }
    }
}
