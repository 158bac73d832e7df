import MachineModel

/// ACPI's fixed hardware in a snapshot. The PM timer is not in it: it is the machine's clock.
public struct PowerManagementState: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    public var status: UInt16
    public var enable: UInt16
    public var control: UInt16
    public var gpeStatus: UInt16
    public var gpeEnable: UInt16
    public var timerChangesSeen: UInt64
}

extension PowerManagement {
    public func saveState() -> PowerManagementState {
        chip.withLock { chip in
            PowerManagementState(
                status: chip.status, enable: chip.enable, control: chip.control, gpeStatus: chip.gpeStatus,
                gpeEnable: chip.gpeEnable, timerChangesSeen: chip.timerChangesSeen)
        }
    }

    /// Throws and changes nothing if the registers could never be so.
    public func restore(_ state: PowerManagementState) throws(InvalidDeviceState) {
        try state.checkVersion(of: "acpi-pm")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("acpi-pm", reason) }
        }
        try check(state.status & ~PM1.stored == 0, "PM1_STS has reserved bits")
        try check(state.enable & ~PM1.enables == 0, "PM1_EN has reserved bits")
        try check(state.control & ~Control.stored == 0, "PM1_CNT has reserved bits")
        chip.withLock { chip in
            (chip.status, chip.enable, chip.control) = (state.status, state.enable, state.control)
            (chip.gpeStatus, chip.gpeEnable) = (state.gpeStatus, state.gpeEnable)
            chip.timerChangesSeen = state.timerChangesSeen
            update(&chip)
        }
    }
}
