// Interprocessor interrupts and who is addressed: Intel SDM vol. 3, 11.6.

/// An interrupt on the bus.
struct APICCommand: BitwiseCopyable {
    var mode: APICDeliveryMode
    var vector: UInt8
    var isLogical: Bool
    /// An APIC ID or a logical destination; all ones: everybody.
    var destination: UInt32
    var levelTriggered: Bool
}

/// Bits of ICR (11.6.1, figures 11-12 and 11-28).
enum APICICR {
    static let logical: UInt32 = 1 << 11
    static let assert: UInt32 = 1 << 14
    static let level: UInt32 = 1 << 15
    /// What software may write in xAPIC mode; delivery status (12) reads idle.
    static let writable: UInt32 = 0xFFF | assert | level | 3 << 18
    /// Bits whose writing raises #GP in x2APIC mode: 13, 16-17, 20-31.
    static let reservedInX2APIC: UInt32 = 1 << 13 | 3 << 16 | 0xFFF0_0000

    static func shorthand(_ value: UInt32) -> UInt32 { value >> 18 & 3 }
}

extension LocalAPIC {
    /// Sends what ICR says. `destination` is all of 32 bits in x2APIC mode, 8 in xAPIC mode.
    func sendIPI(_ icr: UInt32, destination: UInt32) {
        let mode = APICDeliveryMode(rawValue: UInt8(icr >> 8 & 7))!
        let vector = UInt8(truncatingIfNeeded: icr)
        switch mode {
        case .fixed, .lowestPriority:
            if vector < 16 { return report(APICESR.sendIllegalVector) }
        case .INIT:
            // INIT level de-assert synchronized arbitration IDs on the Pentium; later processors ignore it.
            if icr & APICICR.level != 0, icr & APICICR.assert == 0 { return }
        case .NMI, .startUp: break
        case .SMI, .remoteRead, .external: return
        }
        // IPIs are edge-triggered (11.6.1, "Trigger Mode": level is for INIT de-assert only).
        var command = APICCommand(
            mode: mode, vector: vector, isLogical: icr & APICICR.logical != 0, destination: destination,
            levelTriggered: false)
        switch APICICR.shorthand(icr) {
        case 0:
            if !isX2APIC, !command.isLogical, destination == 0xFF { command.destination = .max }
            bus.deliver(command)
        // To oneself only fixed interrupts make sense (table 11-3).
        case 1: if mode == .fixed || mode == .lowestPriority { bus.deliver(command, to: self) }
        default:
            let includesSelf = APICICR.shorthand(icr) == 2
            for apic in bus.apics where apic !== self || (includesSelf && mode == .fixed) {
                bus.deliver(command, to: apic)
            }
        }
    }

    /// Whether a destination names this APIC (11.6.2). Any thread.
    func isAddressed(by command: APICCommand) -> Bool {
        let destination = command.destination
        if destination == .max { return true }
        guard command.isLogical else { return destination == id }
        let ldr = registers[APICRegister.LDR]
        if isX2APIC {
            return destination >> 16 == ldr >> 16 && destination & ldr & 0xFFFF != 0
        }
        let logical = ldr >> 24
        switch registers[APICRegister.DFR] >> 28 {
        case 0xF: return destination & logical != 0
        case 0: return destination >> 4 & 15 == logical >> 4 && destination & logical & 15 != 0
        default: return false
        }
    }
}
