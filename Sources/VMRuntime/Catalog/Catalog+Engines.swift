import HostLinux
import KVMEngine
import MachineModel
import SoftEngine

extension Catalog {
    /// What can run the guest's instructions.
    public static let engines = CatalogSection<EngineParts, any Engine>(
        flag: "--engine",
        entries: [
            CatalogEntry(
                "auto", summary: "KVM where the host's processor runs guests, else in software",
                options: [translator, codeMemory, perfMap],
                make: makeSoft),
            CatalogEntry(
                "kvm", summary: "the host kernel's KVM (/dev/kvm)", options: [irqchip, dirtyLog],
                make: makeKVM),
            CatalogEntry(
                "soft", summary: "runs the guest in software; needs nothing of the host",
                options: [translator, codeMemory, perfMap],
                make: makeSoft),
        ])

    private static let irqchip = CatalogOption.choice(
        "irqchip", "whose the 8259s, I/O APIC and PIT are: the host kernel's, or Davit's (kernel, split)",
        defaultValue: KVMIRQChip.kernel.rawValue, of: KVMIRQChip.allCases.map(\.rawValue))

    private static let dirtyLog = CatalogOption.choice(
        "dirty-log", "how KVM tells of pages that the guest has written to (bitmap, ring)",
        defaultValue: KVMDirtyLog.bitmap.rawValue, of: KVMDirtyLog.allCases.map(\.rawValue))

    private static let translator = CatalogOption.flag(
        "translator", "whether guest code is translated to host code (on, off)", defaultValue: true)

    private static let codeMemory = CatalogOption.number(
        "code-memory", "how many MiB of translated code each vCPU keeps",
        defaultValue: "\(SoftEngine.defaultCodeMemory >> 20)", from: 2, upTo: 1024)

    private static let perfMap = CatalogOption.flag(
        "perf-map", "whether /tmp/perf-PID.map names translated code for Linux's perf (on, off)", defaultValue: false)

    @Sendable
    private static func makeSoft(
        settings: ComponentSettings, parts: EngineParts
    ) throws(MachineError) -> any Engine {
        var map: PerfMap?
        if settings.isOn(perfMap.name) {
            do throws(SystemError) {
                map = try PerfMap()
            } catch {
                throw MachineError(
                    .host, "/tmp/perf-PID.map cannot be written (\(error)); make room in /tmp or leave out perf-map=on")
            }
        }
        do throws(SystemError) {
            return try SoftEngine(
                parts, limit: parts.features == .baseline ? KVMHost.features : [],
                translates: settings.isOn(translator.name),
                codeMemory: Int(settings.number(codeMemory.name)) << 20, perfMap: map)
        } catch {
            throw MachineError(
                .host, "the software engine gets no address space (\(error)); raise the limit on it (ulimit -v)")
        }
    }

    @Sendable
    private static func makeKVM(
        settings: ComponentSettings, parts: EngineParts
    ) throws(MachineError) -> any Engine {
        do throws(KVMError) {
            let host = try KVMHost()
            let model = KVMProcessorModel(
                baseline: SoftEngine.processorModel(vcpuCount: parts.vcpuCount, features: parts.features),
                tscFrequency: SoftEngine.tscFrequency, features: parts.features,
                isHardwareBacked: KVMHost.isHardwareBacked)
            return try KVMEngine(
                parts, host: host, model: model, takesKernel: !KVMHost.isHardwareBacked,
                irqchip: KVMIRQChip(rawValue: settings.text(irqchip.name)) ?? .kernel,
                dirtyLog: KVMDirtyLog(rawValue: settings.text(dirtyLog.name)) ?? .bitmap,
                standIn: { try SoftStandIn(parts, for: $0) })
        } catch {
            throw MachineError(.unavailable, "--engine kvm: \(error)")
        }
    }
}
