import MachineModel

/// The root of PCI Express in the DSDT (PCI Firmware Specification 3.2, 4.5): bus numbers, memory window, interrupt routing, and the
/// method by which an operating system takes over what firmware does on other machines.
enum PCIRoot {
    /// The UUID under which `_OSC` is asked about PCI, as a buffer has it (ACPI 6.5, 6.2.11.3).
    private static let oscUUID: [UInt8] = [
        0x5B, 0x4D, 0xDB, 0x33, 0xF7, 0x1F, 0x1C, 0x40, 0x96, 0x57, 0x74, 0x41, 0xC0, 0x3D, 0xD7, 0x66,
    ]
    private static let unrecognizedUUID: UInt64 = 1 << 2

    static var device: AML {
        .device(
            "PCI0",
            [
                .named("_HID", .eisaID("PNP0A08")), .named("_CID", .eisaID("PNP0A03")),
                .named("_UID", .integer(0)), .named("_SEG", .integer(0)), .named("_BBN", .integer(0)),
                .named(
                    "_CRS",
                    .resources([
                        .busNumbers(0...UInt16(PlatformLayout.PCI.busCount - 1)),
                        .ports(PlatformLayout.Port.pciConfiguration),
                        .memoryWindow(PlatformLayout.PCI.memoryWindow),
                    ])),
                .named("_PRT", .package((0..<32).map(route))), osc,
            ])
    }

    /// INTA# of one device, straight to the I/O APIC (ACPI 6.5, 6.2.13). No function of ours has another pin.
    private static func route(_ device: Int) -> AML {
        let gsi = PlatformLayout.PCI.firstGSI + PlatformLayout.PCI.line(device: device, pin: 0)
        return .package([
            .integer(UInt64(device) << 16 | 0xFFFF), .integer(0), .integer(0), .integer(UInt64(gsi)),
        ])
    }

    /// Grants whatever is asked for: there is no firmware that would go on doing it.
    private static var osc: AML {
        .method(
            "_OSC", argumentCount: 4,
            [
                .if(.equal(.argument(0), .buffer(oscUUID)), [.return(.argument(3))]),
                .dwordField("CDW1", of: .argument(3), at: 0),
                .or(.path("CDW1"), .integer(unrecognizedUUID), into: .path("CDW1")),
                .return(.argument(3)),
            ])
    }
}
