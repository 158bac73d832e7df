import MachineModel

/// Multiple APIC Description Table, revision 5 (ACPI 6.5, 5.2.12): processors, I/O APIC and how ISA interrupts are wired to it.
enum MADT {
    private enum Structure {
        static let localAPIC: UInt8 = 0
        static let ioAPIC: UInt8 = 1
        static let interruptSourceOverride: UInt8 = 2
        static let localAPICNMI: UInt8 = 4
        static let localX2APIC: UInt8 = 9
        static let localX2APICNMI: UInt8 = 10
    }

    /// MPS INTI flags.
    private enum Interrupt {
        static let conforming: UInt16 = 0
        static let activeHighLevel: UInt16 = 0b1101
    }

    private static let PCAT_COMPAT: UInt32 = 1
    private static let enabled: UInt32 = 1
    /// APIC ids from here on need x2APIC structures: 255 means all processors.
    private static let firstX2APICID = 255
    /// Non-maskable interrupts come in at LINT1.
    private static let nmiInput: UInt8 = 1

    /// Processors have their number as APIC id and as ACPI UID.
    static func table(processorCount: Int) -> ACPITable {
        var body = FieldWriter()
        body.append(UInt32(PlatformLayout.MMIO.localAPIC.rawValue))
        body.append(PCAT_COMPAT)
        for processor in 0..<processorCount {
            if processor < firstX2APICID {
                body.append([Structure.localAPIC, 8, UInt8(processor), UInt8(processor)])
                body.append(enabled)
            } else {
                body.append([Structure.localX2APIC, 16, 0, 0])
                body.append(UInt32(processor))
                body.append(enabled)
                body.append(UInt32(processor))
            }
        }
        // The I/O APIC's id is its own name space; its pins begin at GSI 0.
        body.append([Structure.ioAPIC, 12, 0, 0])
        body.append(UInt32(PlatformLayout.MMIO.ioapic.rawValue))
        body.append(UInt32(0))

        typealias IRQ = PlatformLayout.IRQ
        let overrides = [(IRQ.pit, IRQ.pitGSI, Interrupt.conforming), (IRQ.sci, IRQ.sci, Interrupt.activeHighLevel)]
        for (irq, gsi, flags) in overrides {
            body.append([Structure.interruptSourceOverride, 10, 0, UInt8(irq)])
            body.append(UInt32(gsi))
            body.append(flags)
        }
        body.append([Structure.localAPICNMI, 6, 0xFF, 0, 0, nmiInput])
        if processorCount > firstX2APICID {
            body.append([Structure.localX2APICNMI, 12, 0, 0])
            body.append(UInt32.max)
            body.append([nmiInput, 0, 0, 0])
        }
        return ACPITable(signature: "APIC", revision: 5, body: body.bytes)
    }
}
