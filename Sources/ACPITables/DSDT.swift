import MachineModel

/// Differentiated System Description Table, revision 2 (ACPI 6.5, 5.2.11.1): the devices that do not announce themselves.
enum DSDT {
    static func table(_ platform: ACPIPlatform) -> ACPITable {
        var devices = (0..<platform.processorCount).map(processor)
        devices += platform.serialPorts.sorted().map(serialPort)
        devices += chipset
        devices.append(PCIRoot.device)
        if platform.hasKeyboard { devices += [keyboard, mouse] }
        if platform.hasHPET { devices.append(hpet) }
        if platform.hasPvpanic { devices.append(pvpanic) }
        devices += (0..<platform.virtioCount).map(virtio)
        devices += platform.devices
        let contents = [AML.scope("\\_SB", devices), sleepState5]
        return ACPITable(signature: "DSDT", revision: 2, body: contents.flatMap(\.bytes))
    }

    private typealias Port = PlatformLayout.Port
    private typealias IRQ = PlatformLayout.IRQ
    private typealias MMIO = PlatformLayout.MMIO

    /// SLP_TYPa and SLP_TYPb of soft off (7.4.2.6).
    private static var sleepState5: AML {
        let type = AML.integer(UInt64(PlatformLayout.ACPI.sleepTypeS5))
        return .named("\\_S5", .package([type, type, .integer(0), .integer(0)]))
    }

    /// \_SB.C000, C001 and so on; `_UID` leads to the processor's structure in the MADT.
    private static func processor(_ number: Int) -> AML {
        let digits = String(number, radix: 16, uppercase: true)
        let name = "C" + String(repeating: "0", count: 3 - digits.count) + digits
        return .device(name, [.named("_HID", .string("ACPI0007")), .named("_UID", .integer(UInt64(number)))])
    }

    /// COM1 for 0, and so on.
    private static func serialPort(_ number: Int) -> AML {
        device(
            "COM\(number + 1)", "PNP0501", uid: number + 1,
            [.ports(Port.serial[number]), .interrupt(IRQ.serial[number])])
    }

    private static var chipset: [AML] {
        [
            device("PIC", "PNP0000", [.ports(Port.pic1), .ports(Port.pic2), .ports(Port.edgeLevelControl)]),
            device("TIMR", "PNP0100", [.ports(Port.pit), .interrupt(IRQ.pit)]),
            device("RTC", "PNP0B00", [.ports(Port.rtc), .interrupt(IRQ.rtc)]),
            device("SPKR", "PNP0800", [.port(Port.systemControlB)]),
            device(
                "MBRD", "PNP0C02",
                [
                    .ports(Port.powerManagement), .port(Port.systemControlA),
                    .memory(MMIO.ioapic, size: MMIO.ioapicSize),
                    .memory(PlatformLayout.PCI.ecam, size: PlatformLayout.PCI.ecamSize),
                ]),
        ]
    }

    private static var keyboard: AML {
        device(
            "KBD", "PNP0303", [.port(Port.keyboardData), .port(Port.keyboardCommand), .interrupt(IRQ.keyboard)])
    }

    /// The controller's auxiliary device; its ports are the keyboard's.
    private static var mouse: AML { device("MOU", "PNP0F13", [.interrupt(IRQ.mouse)]) }

    private static var hpet: AML {
        device("HPET", "PNP0103", [.memory(MMIO.hpet, size: MMIO.hpetSize)])
    }

    /// A virtio device without PCI, by the id under which guests look for it.
    private static func virtio(_ number: Int) -> AML {
        let digits = String(number, radix: 16, uppercase: true)
        typealias Window = PlatformLayout.VirtioMMIO
        return .device(
            "VR" + (number < 16 ? "0" : "") + digits,
            [
                .named("_HID", .string("LNRO0005")), .named("_UID", .integer(UInt64(number))),
                .named(
                    "_CRS",
                    .resources([
                        .memory(Window.address(number), size: Window.size), .sharedInterrupt(gsi: Window.gsi(number)),
                    ])),
            ])
    }

    /// The panic port, by the id under which guests know it.
    private static var pvpanic: AML {
        .device(
            "PEVT",
            [
                .named("_HID", .string("QEMU0001")), .named("_CRS", .resources([.port(Port.pvpanic)])),
                .named("_STA", .integer(presentAndWorking)),
            ])
    }

    /// `_STA`: present, enabled, shown, working.
    private static let presentAndWorking: UInt64 = 0xF

    private static func device(
        _ name: String, _ id: String, uid: Int? = nil, _ resources: [ResourceDescriptor]
    ) -> AML {
        var contents = [AML.named("_HID", .eisaID(id))]
        if let uid { contents.append(.named("_UID", .integer(UInt64(uid)))) }
        contents.append(.named("_CRS", .resources(resources)))
        return .device(name, contents)
    }
}
