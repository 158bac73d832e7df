import MachineModel

/// A 16550A in a snapshot. Output that had not reached the channel travels along.
public struct UART16550State: DeviceState {
    public static let currentVersion: UInt32 = 1

    public var version = Self.currentVersion
    public var ier: UInt8
    public var fcr: UInt8
    public var lcr: UInt8
    public var mcr: UInt8
    public var msr: UInt8
    public var scr: UInt8
    public var divisor: UInt16
    public var errors: UInt8
    public var receiver: [UInt16]
    public var transmitter: [UInt8]
    public var backlog: [UInt8]
    public var transmitterEmptyPending: Bool
    public var timeoutPending: Bool
}

extension UART16550 {
    public func saveState() -> UART16550State {
        chip.withLock { chip in
            UART16550State(
                ier: chip.ier, fcr: chip.fcr, lcr: chip.lcr, mcr: chip.mcr, msr: chip.msr, scr: chip.scr,
                divisor: chip.divisor, errors: chip.errors, receiver: chip.receiver, transmitter: chip.transmitter,
                backlog: chip.backlog, transmitterEmptyPending: chip.transmitterEmptyPending,
                timeoutPending: chip.timeoutPending)
        }
    }

    /// Throws and changes nothing if no 16550A could be in this state. The character timeout starts anew.
    public func restore(_ state: UART16550State) throws(InvalidDeviceState) {
        try state.checkVersion(of: "uart16550")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("uart16550", reason) }
        }
        let depth = state.fcr & FCR.fifoEnable != 0 ? Self.fifoDepth : 1
        try check(state.ier & ~IER.all == 0, "IER has reserved bits")
        try check(state.mcr & ~MCR.all == 0, "MCR has reserved bits")
        try check(state.fcr & ~FCR.stored == 0, "FCR has bits that are never stored")
        try check(state.fcr == 0 || state.fcr & FCR.fifoEnable != 0, "FCR has a trigger level without FIFOs")
        try check(state.errors & ~LSR.errors == 0, "LSR's errors have other bits")
        try check(state.receiver.count <= depth, "\(state.receiver.count) characters in a receiver of \(depth)")
        try check(
            state.receiver.allSatisfy { UInt8($0 >> 8) & ~LSR.errors == 0 }, "a received character has other bits")
        try check(
            state.transmitter.count <= depth, "\(state.transmitter.count) characters in a transmitter of \(depth)")
        try check(state.backlog.count <= Self.backlogLimit, "\(state.backlog.count) bytes of output")
        chip.withLock { chip in
            chip.powerOn()
            (chip.ier, chip.fcr, chip.lcr, chip.mcr) = (state.ier, state.fcr, state.lcr, state.mcr)
            (chip.msr, chip.scr, chip.divisor, chip.errors) = (state.msr, state.scr, state.divisor, state.errors)
            (chip.receiver, chip.transmitter, chip.backlog) = (state.receiver, state.transmitter, state.backlog)
            chip.transmitterEmptyPending = state.transmitterEmptyPending
            chip.timeoutPending = state.timeoutPending
            if chip.hasFIFOs, !chip.receiver.isEmpty, !chip.timeoutPending {
                chip.timeoutTimer?.arm(at: clock.now &+ 4 &* chip.characterTime)
            }
            flush(&chip)
            update(&chip)
        }
    }
}
