import MachineModel
import SoftEngine

extension Catalog {
    /// What can run the guest's instructions.
    public static let engines = CatalogSection<EngineParts, any Engine>(
        flag: "--engine",
        entries: [
            CatalogEntry("auto", summary: "the fastest that this host offers") { (_, _) throws(MachineError) in
                throw MachineError(.unavailable, "--engine auto: no engine is built in yet")
            },
            CatalogEntry("soft", summary: "runs the guest in software; needs nothing of the host") {
                (_, _) throws(MachineError) in
                throw MachineError(.unavailable, "--engine soft: no engine is built in yet")
            },
        ])
}
