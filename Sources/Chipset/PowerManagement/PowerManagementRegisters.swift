import MachineModel

/// Register offsets and bits in the spelling of ACPI 6.5, section 4.8.3 (PM1, PM timer) and 4.8.4 (GPE).
extension PowerManagement {
    /// Offsets from the start of the block.
    enum Register {
        static let base = PlatformLayout.Port.powerManagement.lowerBound
        /// PM1_STS in two bytes, then PM1_EN in two.
        static let pm1Status = PlatformLayout.Port.pm1aEvent - base
        static let pm1Enable = pm1Status + 2
        static let pm1Control = PlatformLayout.Port.pm1aControl - base
        static let pmTimer = PlatformLayout.Port.pmTimer - base
        /// GPE0_STS, then GPE0_EN.
        static let gpe0Status = PlatformLayout.Port.gpe0 - base
        static let gpe0Enable = gpe0Status + UInt16(PlatformLayout.ACPI.gpe0Length) / 2
    }

    /// PM1_STS and, but for those without an enable bit, PM1_EN.
    enum PM1 {
        static let tmr: UInt16 = 1 << 0
        static let gbl: UInt16 = 1 << 5
        static let pwrbtn: UInt16 = 1 << 8
        static let slpbtn: UInt16 = 1 << 9
        static let rtc: UInt16 = 1 << 10
        static let enables: UInt16 = tmr | gbl | pwrbtn | slpbtn | rtc
        /// TMR_STS stands apart: it is worked out from the clock.
        static let stored: UInt16 = gbl | pwrbtn | slpbtn | rtc
    }

    /// PM1_CNT.
    enum Control {
        static let sciEn: UInt16 = 1 << 0
        static let bmRld: UInt16 = 1 << 1
        static let slpTyp: UInt16 = 7 << 10
        static let slpEn: UInt16 = 1 << 13
        /// What can be written and read back: GBL_RLS and SLP_EN read as zero, SCI_EN as one.
        static let stored: UInt16 = bmRld | slpTyp
        static func sleepType(_ value: UInt16) -> UInt8 { UInt8(truncatingIfNeeded: (value & slpTyp) >> 10) }
    }

    /// TMR_STS is set each time this bit of the PM timer changes.
    static let timerTopBit: UInt64 = PlatformLayout.ACPI.pmTimerIs32Bit ? 31 : 23
}
