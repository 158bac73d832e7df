import HostLinux
import MachineModel
import SoftEngine

extension Catalog {
    /// What can run the guest's instructions.
    public static let engines = CatalogSection<EngineParts, any Engine>(
        flag: "--engine",
        entries: [
            CatalogEntry("auto", summary: "the fastest that this host offers", make: makeSoft),
            CatalogEntry("soft", summary: "runs the guest in software; needs nothing of the host", make: makeSoft),
        ])

    @Sendable
    private static func makeSoft(
        _: ComponentSettings, parts: EngineParts
    ) throws(MachineError) -> any Engine {
        do throws(SystemError) {
            return try SoftEngine(parts)
        } catch {
            throw MachineError(
                .host, "the software engine gets no address space (\(error)); raise the limit on it (ulimit -v)")
        }
    }
}
