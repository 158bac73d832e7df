/// Register numbers and bits in the spelling of Motorola's MC146818A data sheet (1984), and the bytes of CMOS RAM that
/// PCs agree on.
extension RTC {
    enum Register {
        static let seconds = 0x00
        static let secondsAlarm = 0x01
        static let minutes = 0x02
        static let minutesAlarm = 0x03
        static let hours = 0x04
        static let hoursAlarm = 0x05
        static let dayOfWeek = 0x06
        static let dayOfMonth = 0x07
        static let month = 0x08
        static let year = 0x09
        static let a = 0x0A
        static let b = 0x0B
        static let c = 0x0C
        static let d = 0x0D
        /// CMOS RAM from here on.
        static let ram = 0x0E
        static let equipment = 0x14
        /// KiB below 640 KiB, two bytes, low first; so are the next two.
        static let baseMemory = 0x15
        /// KiB above 1 MiB, at most 65535.
        static let extendedMemory = 0x17
        /// The same again, as the power-on test is to have measured it.
        static let measuredExtendedMemory = 0x30
        /// Hundreds of years; the RTC keeps it here like its own registers.
        static let century = 0x32
        /// Units of 64 KiB above 16 MiB and below 4 GiB, two bytes.
        static let memoryAbove16M = 0x34
        /// Units of 64 KiB above 4 GiB, three bytes.
        static let memoryAbove4G = 0x5B
    }

    enum A {
        /// An update is less than 244 microseconds away.
        static let uip: UInt8 = 1 << 7
        /// The divider chain.
        static let dv: UInt8 = 7 << 4
        /// DV values from here on hold the divider in reset.
        static let dvReset: UInt8 = 6 << 4
        static let rs: UInt8 = 0x0F
        /// A 32.768 kHz crystal and a periodic rate of 1024 Hz.
        static let initial: UInt8 = 0x26
    }

    enum B {
        static let set: UInt8 = 1 << 7
        static let pie: UInt8 = 1 << 6
        static let aie: UInt8 = 1 << 5
        static let uie: UInt8 = 1 << 4
        static let sqwe: UInt8 = 1 << 3
        /// Binary rather than BCD.
        static let dm: UInt8 = 1 << 2
        static let hours24: UInt8 = 1 << 1
    }

    /// C's flags stand at the same bits as their enables in B.
    enum C {
        static let irqf: UInt8 = 1 << 7
        static let pf: UInt8 = 1 << 6
        static let af: UInt8 = 1 << 5
        static let uf: UInt8 = 1 << 4
        static let flags: UInt8 = pf | af | uf
    }

    enum D {
        /// Valid RAM and time: the battery is good.
        static let vrt: UInt8 = 1 << 7
    }

    /// Port 0x70's bit that masks NMI.
    static let nmiMask: UInt8 = 1 << 7
    /// Bytes behind the index register.
    static let size = 128
    /// How long UIP is on before an update, in nanoseconds.
    static let updateWarning: Int64 = 244_000
    /// Ticks per second of the divider's crystal.
    static let crystal: UInt64 = 32_768
    /// PM in the hours register in 12-hour mode.
    static let pm: UInt8 = 0x80
    /// An alarm byte from here on matches any value.
    static let anyAlarm: UInt8 = 0xC0
}
