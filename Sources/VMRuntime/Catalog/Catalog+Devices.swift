extension Catalog {
    /// Devices beyond those that every machine has.
    public static let devices = CatalogSection<Void, Void>(
        flag: "--device",
        entries: [
            CatalogEntry(
                "debug-exit", summary: "a port whose write ends the machine with status (value << 1) | 1",
                options: [.number("port", "which port", defaultValue: "0xf4", upTo: 0xFFFC)]
            ) { (_, _) throws(MachineError) in }
        ])
}
