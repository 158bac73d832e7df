// Registers of the HPET: IA-PC HPET Specification 1.0a (October 2004), 2.3.

enum HPETRegister {
    static let capabilities: UInt64 = 0x000
    static let configuration: UInt64 = 0x010
    static let interruptStatus: UInt64 = 0x020
    static let mainCounter: UInt64 = 0x0F0
    /// First of the timers, `timerStride` bytes each.
    static let timers: UInt64 = 0x100
    static let timerStride: UInt64 = 0x20
    /// Inside a timer.
    static let timerConfiguration: UInt64 = 0x00
    static let timerComparator: UInt64 = 0x08
}

enum HPETCapabilities {
    /// Revision 1, three timers, 64-bit counter, legacy replacement, Intel's vendor ID.
    static let low: UInt64 = 0x8086_A201
}

enum HPETConfiguration {
    /// ENABLE_CNF
    static let enable: UInt64 = 1 << 0
    /// LEG_RT_CNF
    static let legacy: UInt64 = 1 << 1
}

enum HPETTimerConfiguration {
    /// Tn_INT_TYPE_CNF
    static let level: UInt64 = 1 << 1
    /// Tn_INT_ENB_CNF
    static let enable: UInt64 = 1 << 2
    /// Tn_TYPE_CNF
    static let periodic: UInt64 = 1 << 3
    /// Tn_PER_INT_CAP
    static let periodicCapable: UInt64 = 1 << 4
    /// Tn_SIZE_CAP
    static let is64Capable: UInt64 = 1 << 5
    /// Tn_VAL_SET_CNF
    static let setValue: UInt64 = 1 << 6
    /// Tn_32MODE_CNF
    static let mode32: UInt64 = 1 << 8
    static func route(_ configuration: UInt64) -> Int { Int(configuration >> 9 & 31) }
    /// I/O APIC pins 20-23.
    static let routes: UInt64 = 0x00F0_0000 << 32
    /// Without the FSB bits: interrupts as messages are not offered.
    static let writable: UInt64 = level | enable | periodic | setValue | mode32 | 31 << 9
    static let capabilities: UInt64 = periodicCapable | is64Capable | routes
}
