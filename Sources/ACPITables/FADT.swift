import GuestMemory
import MachineModel

/// Fixed ACPI Description Table, revision 6.3 (ACPI 6.5, 5.2.9): the power management block and what of a PC is there.
enum FADT {
    /// IAPC_BOOT_ARCH.
    private enum BootArchitecture {
        static let LEGACY_DEVICES: UInt16 = 1 << 0
        static let controller8042: UInt16 = 1 << 1
        static let VGA_NOT_PRESENT: UInt16 = 1 << 2
    }

    private enum Flags {
        static let WBINVD: UInt32 = 1 << 0
        static let PROC_C1: UInt32 = 1 << 2
        /// No fixed sleep button.
        static let SLP_BUTTON: UInt32 = 1 << 5
        /// The RTC's alarm has no bit in PM1.
        static let FIX_RTC: UInt32 = 1 << 6
        static let TMR_VAL_EXT: UInt32 = 1 << 8
        static let RESET_REG_SUP: UInt32 = 1 << 10
    }

    private static let serverProfile: UInt8 = 4
    /// Latencies (microseconds) above these mean that a C state is not there.
    private static let noC2: UInt16 = 101
    private static let noC3: UInt16 = 1001
    private static let pm1EventLength: UInt8 = 4
    private static let pm1ControlLength: UInt8 = 2
    private static let pmTimerLength: UInt8 = 4

    static func table(facs: GuestPhysicalAddress, dsdt: GuestPhysicalAddress, hasKeyboard: Bool) -> ACPITable {
        typealias Port = PlatformLayout.Port
        typealias ACPI = PlatformLayout.ACPI
        var body = FieldWriter()
        body.append(UInt32(facs.rawValue))
        body.append(UInt32(dsdt.rawValue))
        body.append(UInt8(0))
        body.append(serverProfile)
        body.append(UInt16(PlatformLayout.IRQ.sci))
        // SMI_CMD, ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT: there is no system management mode.
        body.appendZeros(8)
        body.append(UInt32(Port.pm1aEvent))
        body.append(UInt32(0))
        body.append(UInt32(Port.pm1aControl))
        body.append(UInt32(0))
        body.append(UInt32(0))
        body.append(UInt32(Port.pmTimer))
        body.append(UInt32(Port.gpe0))
        body.append(UInt32(0))
        body.append([pm1EventLength, pm1ControlLength, 0, pmTimerLength, ACPI.gpe0Length, 0, 0, 0])
        body.append(noC2)
        body.append(noC3)
        // FLUSH_SIZE, FLUSH_STRIDE, DUTY_OFFSET, DUTY_WIDTH, DAY_ALRM, MON_ALRM.
        body.appendZeros(8)
        body.append(ACPI.rtcCentury)
        var architecture = BootArchitecture.LEGACY_DEVICES | BootArchitecture.VGA_NOT_PRESENT
        if hasKeyboard { architecture |= BootArchitecture.controller8042 }
        body.append(architecture)
        body.append(UInt8(0))
        var flags = Flags.WBINVD | Flags.PROC_C1 | Flags.SLP_BUTTON | Flags.FIX_RTC | Flags.RESET_REG_SUP
        if ACPI.pmTimerIs32Bit { flags |= Flags.TMR_VAL_EXT }
        body.append(flags)
        body.append(GenericAddress.port(Port.resetControl, bits: 8, access: .byte))
        body.append(ACPI.resetValue)
        // ARM_BOOT_ARCH, then the minor version.
        body.append(UInt16(0))
        body.append(UInt8(3))
        // X_FIRMWARE_CTRL stays zero, because FIRMWARE_CTRL says it.
        body.append(UInt64(0))
        body.append(dsdt.rawValue)
        body.append(GenericAddress.port(Port.pm1aEvent, bits: pm1EventLength * 8, access: .word))
        body.append(GenericAddress.none)
        body.append(GenericAddress.port(Port.pm1aControl, bits: pm1ControlLength * 8, access: .word))
        body.append(GenericAddress.none)
        body.append(GenericAddress.none)
        body.append(GenericAddress.port(Port.pmTimer, bits: pmTimerLength * 8, access: .dword))
        body.append(GenericAddress.port(Port.gpe0, bits: ACPI.gpe0Length * 8, access: .byte))
        body.append(GenericAddress.none)
        // SLEEP_CONTROL_REG and SLEEP_STATUS_REG are for hardware-reduced machines.
        body.append(GenericAddress.none)
        body.append(GenericAddress.none)
        body.append(UInt64(0))
        return ACPITable(signature: "FACP", revision: 6, body: body.bytes)
    }
}
