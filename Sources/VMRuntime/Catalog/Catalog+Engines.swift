import HostLinux
import MachineModel
import SoftEngine

extension Catalog {
    /// What can run the guest's instructions.
    public static let engines = CatalogSection<EngineParts, any Engine>(
        flag: "--engine",
        entries: [
            CatalogEntry(
                "auto", summary: "the fastest that this host offers", options: [translator], make: makeSoft),
            CatalogEntry(
                "soft", summary: "runs the guest in software; needs nothing of the host", options: [translator],
                make: makeSoft),
        ])

    private static let translator = CatalogOption.choice(
        "translator", "whether 64-bit guest code is translated to host code (on, off)", defaultValue: "on",
        of: ["on", "off"])

    @Sendable
    private static func makeSoft(
        settings: ComponentSettings, parts: EngineParts
    ) throws(MachineError) -> any Engine {
        do throws(SystemError) {
            return try SoftEngine(parts, translates: settings.text(translator.name) == "on")
        } catch {
            throw MachineError(
                .host, "the software engine gets no address space (\(error)); raise the limit on it (ulimit -v)")
        }
    }
}
