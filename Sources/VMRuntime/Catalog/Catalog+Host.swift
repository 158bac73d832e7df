import GuestMemory
import HostLinux
import MachineModel

// How a machine lies on its host.
extension Catalog {
    /// What memory of the host's the guest's RAM is. The context is its size in bytes.
    public static let memories = CatalogSection<UInt64, GuestMemory>(
        flag: "--memory",
        entries: [
            CatalogEntry(
                "ram", summary: "behind the size, for instance 4G,hugepages=on",
                options: [hugePages, shared, mergeable],
                make: makeMemory)
        ])

    private static let hugePages = CatalogOption.flag(
        "hugepages", "whether it is taken from the host's pool of huge pages (on, off)", defaultValue: false)

    private static let shared = CatalogOption.flag(
        "shared", "whether another process could be handed it (on, off)", defaultValue: true)

    private static let mergeable = CatalogOption.flag(
        "mergeable", "whether the host's KSM may merge like pages of it, with shared=off (on, off)",
        defaultValue: false)

    @Sendable
    private static func makeMemory(
        settings: ComponentSettings, size: UInt64
    ) throws(MachineError) -> GuestMemory {
        let backing = GuestMemoryBacking(
            usesHugePages: settings.isOn(hugePages.name), isShared: settings.isOn(shared.name),
            isMergeable: settings.isOn(mergeable.name))
        guard !backing.isMergeable || !backing.isShared else {
            throw MachineError(
                .configuration, "--memory: mergeable=on goes with shared=off; KSM leaves shared memory alone")
        }
        guard !backing.usesHugePages || size % GuestMemory.hugePageSize == 0 else {
            throw MachineError(
                .configuration,
                "--memory \(ByteCount.describe(size)) is not whole huge pages; give a multiple of 2M, or leave out hugepages=on"
            )
        }
        do throws(SystemError) {
            return try GuestMemory(size: size, backing: backing)
        } catch {
            if backing.usesHugePages {
                throw MachineError(
                    .host,
                    "--memory: the host has no \(size / GuestMemory.hugePageSize) huge pages free (\(error)); "
                        + "raise vm.nr_hugepages (sysctl), or leave out hugepages=on")
            }
            if backing.isMergeable && error.call.hasPrefix("madvise") {
                throw MachineError(.host, "--memory: this host's kernel has no KSM (\(error)); leave out mergeable=on")
            }
            throw MachineError(.host, "the host refuses a machine with \(ByteCount.describe(size)): \(error)")
        }
    }

    /// Which of the host's processors the vCPUs' threads run on, in turn; empty if on any. The context is how many vCPUs there are.
    public static let processors = CatalogSection<Int, [Int]>(
        flag: "--cpus",
        entries: [
            CatalogEntry(
                "vcpus", summary: "behind their number, for instance 4,affinity=0-3", options: [affinity],
                make: makeAffinity)
        ])

    private static let affinity = CatalogOption(
        name: "affinity", summary: "which processor of the host's each runs on, such as 0-3 or 0+2", defaultValue: "",
        objection: { $0.isEmpty || processorList($0) != nil ? nil : "numbers and ranges, such as 0-3 or 0+2" })

    @Sendable
    private static func makeAffinity(
        settings: ComponentSettings, vcpuCount: Int
    ) throws(MachineError) -> [Int] {
        let list = processorList(settings.text(affinity.name)) ?? []
        if let stray = list.first(where: { !HostInformation.mayRun(onProcessor: $0) }) {
            throw MachineError(
                .host,
                "--cpus: affinity names processor \(stray), on which this process may not run; see nproc, taskset")
        }
        guard list.isEmpty || list.count == vcpuCount else {
            throw MachineError(
                .configuration,
                "--cpus: affinity names \(list.count) of the host's processors, \(vcpuCount) are wanted: one for each vCPU"
            )
        }
        return list
    }

    /// `0-3+8` as its numbers; nil if it is nothing of the kind.
    private static func processorList(_ text: String) -> [Int]? {
        var list: [Int] = []
        for part in text.split(separator: "+", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
            guard ends.count <= 2, let first = ends[0], let last = ends[ends.count - 1], first <= last, last < 1024
            else { return nil }
            list += (Int(first)...Int(last))
        }
        return list
    }
}
