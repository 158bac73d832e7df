import MachineModel

/// The RTC and CMOS RAM in a snapshot. Time itself is the host's: what is kept is how far the guest's stands from it.
public struct RTCState: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    public var index: UInt8
    /// 128 bytes.
    public var ram: [UInt8]
    public var a: UInt8
    public var b: UInt8
    public var flags: UInt8
    public var offsetSeconds: Int64
    public var offsetNanoseconds: Int64
    public var weekdayShift: Int
    public var wasDividerReset: Bool
}

extension RTC {
    public func saveState() -> RTCState {
        chip.withLock { chip in
            catchUp(&chip)
            return RTCState(
                index: chip.index, ram: chip.ram, a: chip.a, b: chip.b, flags: chip.flags,
                offsetSeconds: chip.offsetSeconds, offsetNanoseconds: chip.offsetNanoseconds,
                weekdayShift: chip.weekdayShift, wasDividerReset: chip.wasDividerReset)
        }
    }

    /// Throws and changes nothing if no RTC could be in this state. Alarms that passed while the machine was saved are
    /// not made up for.
    public func restore(_ state: RTCState) throws(InvalidDeviceState) {
        try state.checkVersion(of: "rtc")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("rtc", reason) }
        }
        // The year 9999 is the furthest that a guest can set, from a host whose time fits 64 bits of nanoseconds.
        let furthest: Int64 = 20_000 * 366 * CalendarTime.secondsPerDay
        try check(state.ram.count == Self.size, "\(state.ram.count) bytes of CMOS RAM")
        try check(state.a & A.uip == 0, "register A has UIP")
        try check(state.flags & ~C.flags == 0, "register C has reserved bits")
        try check((-furthest...furthest).contains(state.offsetSeconds), "offset of \(state.offsetSeconds) s")
        try check(
            (-999_999_999...999_999_999).contains(state.offsetNanoseconds), "offset of \(state.offsetNanoseconds) ns")
        try check((0..<7).contains(state.weekdayShift), "weekday shifted by \(state.weekdayShift)")
        chip.withLock { chip in
            (chip.index, chip.ram, chip.a, chip.b, chip.flags) = (state.index, state.ram, state.a, state.b, state.flags)
            (chip.offsetSeconds, chip.offsetNanoseconds) = (state.offsetSeconds, state.offsetNanoseconds)
            (chip.weekdayShift, chip.wasDividerReset) = (state.weekdayShift, state.wasDividerReset)
            chip.lastSecond = chip.time(at: clock.wallClock).seconds
            chip.lastTick = chip.tick(at: clock.now)
            update(&chip)
        }
    }
}
