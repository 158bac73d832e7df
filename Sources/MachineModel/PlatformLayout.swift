import GuestMemory

/// Where things stand on Davit's PC: port numbers, interrupt lines and register windows. The one place for them,
/// because devices, buses and ACPI tables must agree.
public enum PlatformLayout {
    /// I/O port ranges and ports.
    public enum Port {
        public static let pic1: ClosedRange<UInt16> = 0x20...0x21
        public static let pic2: ClosedRange<UInt16> = 0xA0...0xA1
        /// ELCR1 and ELCR2: which 8259 inputs are level-triggered.
        public static let edgeLevelControl: ClosedRange<UInt16> = 0x4D0...0x4D1
        public static let pit: ClosedRange<UInt16> = 0x40...0x43
        /// NMI status and control: PIT channel 2's gate and output.
        public static let systemControlB: UInt16 = 0x61
        /// A20 and fast reset.
        public static let systemControlA: UInt16 = 0x92
        public static let keyboardData: UInt16 = 0x60
        /// Command when written, status when read.
        public static let keyboardCommand: UInt16 = 0x64
        public static let rtc: ClosedRange<UInt16> = 0x70...0x71
        public static let com1: ClosedRange<UInt16> = 0x3F8...0x3FF
        public static let com2: ClosedRange<UInt16> = 0x2F8...0x2FF
        public static let com3: ClosedRange<UInt16> = 0x3E8...0x3EF
        public static let com4: ClosedRange<UInt16> = 0x2E8...0x2EF
        /// COM1 to COM4 in order.
        public static let serial = [com1, com2, com3, com4]
        public static let resetControl: UInt16 = 0xCF9
        /// CONFIG_ADDRESS and CONFIG_DATA of PCI: the host bridge's. Byte accesses at `resetControl`, in their midst, are not for PCI.
        public static let pciConfiguration: ClosedRange<UInt16> = 0xCF8...0xCFF
        public static let pvpanic: UInt16 = 0x505
        /// The debug-exit device's port unless the user names another.
        public static let debugExit: UInt16 = 0xF4

        /// ACPI's fixed hardware, from the PM1a event block to the end of GPE0.
        public static let powerManagement: ClosedRange<UInt16> = 0x600...0x62F
        /// The watchdog's, which the WDAT describes.
        public static let watchdog: ClosedRange<UInt16> = 0x640...0x647
        /// PM1a_EVT_BLK: PM1_STS, then PM1_EN; 4 bytes.
        public static let pm1aEvent: UInt16 = 0x600
        /// PM1a_CNT_BLK: 2 bytes.
        public static let pm1aControl: UInt16 = 0x604
        /// PM_TMR_BLK: 4 bytes, 32 bits wide.
        public static let pmTimer: UInt16 = 0x608
        /// GPE0_BLK: GPE0_STS, then GPE0_EN; 4 bytes for 16 events.
        public static let gpe0: UInt16 = 0x620
    }

    /// ISA interrupt numbers; the global system interrupt is the same but for IRQ 0, which is wired to GSI 2.
    public enum IRQ {
        public static let pit = 0
        public static let keyboard = 1
        public static let com1 = 4
        public static let com2 = 3
        /// COM1 to COM4 in order; COM3 and COM4 share the lines of COM1 and COM2.
        public static let serial = [4, 3, 4, 3]
        public static let rtc = 8
        /// ACPI's SCI: level-triggered, active high.
        public static let sci = 9
        public static let mouse = 12
        /// Where IRQ 0 arrives at the I/O APIC.
        public static let pitGSI = 2
    }

    /// Register windows in guest physical address space.
    public enum MMIO {
        public static let ioapic = GuestPhysicalAddress(0xFEC0_0000)
        /// In bytes.
        public static let ioapicSize: UInt64 = 0x1000
        public static let hpet = GuestPhysicalAddress(0xFED0_0000)
        /// In bytes.
        public static let hpetSize: UInt64 = 0x400
        /// The local APICs' default base (IA32_APIC_BASE after reset); the engine answers there.
        public static let localAPIC = GuestPhysicalAddress(0xFEE0_0000)
        /// In bytes.
        public static let localAPICSize: UInt64 = 0x1000
    }

    /// PCI Express: one segment, one root, bus 0 to 255.
    public enum PCI {
        /// The memory-mapped configuration space (ECAM), a megabyte for each bus.
        public static let ecam = GuestPhysicalAddress(0xE000_0000)
        /// In bytes.
        public static let ecamSize: UInt64 = 256 << 20
        public static let busCount = 256
        /// Where memory BARs stand.
        public static let memoryWindow: Range<UInt64> = 0xC000_0000..<0xE000_0000
        /// INTA# to INTD# of bus 0, device 0 come in at this global system interrupt and the next three, level-triggered.
        public static let firstGSI = 16
        public static let lineCount = 4

        /// Which of the four lines a device's pin (0 for INTA#) leads to: each device's pins begin at the next line, so that they spread.
        public static func line(device: Int, pin: Int) -> Int { (device + pin) % lineCount }
    }

    /// Virtio devices without PCI, a window for each.
    public enum VirtioMMIO {
        public static let first = GuestPhysicalAddress(0xFEB0_0000)
        /// Of a window, in bytes.
        public static let size: UInt64 = 0x200
        public static let maximumCount = 64
        /// Four global system interrupts are shared among them, level-triggered.
        public static let firstGSI = 20
        public static let lineCount = 4

        public static func address(_ number: Int) -> GuestPhysicalAddress {
            GuestPhysicalAddress(first.rawValue + UInt64(number) * size)
        }

        public static func gsi(_ number: Int) -> Int { firstGSI + number % lineCount }
    }

    /// What FADT and DSDT say about ACPI's fixed hardware (ACPI 6.5, 4.8).
    ///
    /// There is no system management mode, so FADT's SMI_CMD is 0 and the machine is in ACPI mode from the start:
    /// SCI_EN reads as one.
    public enum ACPI {
        /// SLP_TYPa of \_S5 in PM1_CNT; the power management block powers off when it is written with SLP_EN.
        public static let sleepTypeS5: UInt8 = 5
        /// RESET_VALUE: what FADT tells the guest to write to `Port.resetControl`.
        public static let resetValue: UInt8 = 0x06
        /// TMR_VAL_EXT: the PM timer is 32 bits wide.
        public static let pmTimerIs32Bit = true
        /// GPE0_BLK_LEN in bytes: half status, half enable.
        public static let gpe0Length: UInt8 = 4
        /// Offset of the century byte in CMOS RAM (FADT's CENTURY).
        public static let rtcCentury: UInt8 = 0x32
    }

    /// Ticks per second of ACPI's PM timer.
    public static let pmTimerFrequency: UInt64 = 3_579_545
    /// Ticks per second of the 8254's input.
    public static let pitFrequency: UInt64 = 1_193_182
    /// I/O APIC input pins, from GSI 0.
    public static let ioapicPinCount = 24
}
