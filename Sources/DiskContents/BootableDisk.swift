import MachineModel

/// A Linux kernel that was found on a disk, with what goes with it.
public struct BootableDisk: Sendable {
    /// Where it was found, for messages: a partition and a path.
    public let place: String
    public let kernel: [UInt8]
    public let initrd: [UInt8]?
    /// Ends with where the root file system is, unless the disk's own configuration says it.
    public let commandLine: String
    /// The file system that has an init, or else the kernel.
    private let root: Ext4FileSystem

    private static let maximumKernelSize: UInt64 = 256 << 20
    private static let maximumConfigurationSize: UInt64 = 1 << 20
    private static let maximumEntries = 64

    /// Looks for what a boot loader would start: in every ext4 file system on `disk`, in order, entries of the Boot Loader Specification,
    /// extlinux's and GRUB's configuration, kernels in /boot. `device` is the disk's name in the guest, such as `/dev/vda`. An initrd of
    /// more than `initrdLimit` bytes is refused.
    public init(_ disk: any BlockDevice, device: String, initrdLimit: UInt64) throws(DiskContentsError) {
        let volumes = try Self.volumes(DiskReader(disk), device: device)
        for volume in volumes {
            for entry in try Self.entries(volume.files) {
                guard let kernel = try volume.files.file(entry.kernel, limit: Self.maximumKernelSize), !kernel.isEmpty
                else { continue }
                var initrd: [UInt8] = []
                for name in entry.initrds {
                    guard let bytes = try volume.files.file(name, limit: initrdLimit) else { throw .notFound(name) }
                    initrd += bytes
                }
                self.kernel = kernel
                self.initrd = initrd.isEmpty ? nil : initrd
                place = "\(volume.device):\(entry.kernel)"
                let root = try Self.root(of: volumes, found: volume)
                self.root = root.files
                commandLine = Self.commandLine(entry, root: root.device)
                return
            }
        }
        throw .noKernel
    }

    private struct Volume {
        let device: String
        let files: Ext4FileSystem
    }

    /// The ext4 file systems: on the whole disk, or on its partitions.
    private static func volumes(_ disk: DiskReader, device: String) throws(DiskContentsError) -> [Volume] {
        if let files = try Ext4FileSystem(disk) { return [Volume(device: device, files: files)] }
        let partitions = try PartitionTable(disk).partitions
        var volumes: [Volume] = []
        var problem: DiskContentsError?
        for partition in partitions {
            guard let part = disk.part(at: partition.offset, count: partition.count) else { continue }
            do throws(DiskContentsError) {
                guard let files = try Ext4FileSystem(part) else { continue }
                volumes.append(Volume(device: "\(device)\(partition.number)", files: files))
            } catch {
                problem = error
            }
        }
        guard volumes.isEmpty else { return volumes }
        if let problem { throw problem }
        throw .noFileSystem(
            partitions.isEmpty ? "no partition table either" : "partitions of other kinds: \(partitions.count)")
    }

    /// What can be started. A file system may be the root's, or /boot's.
    private static func entries(_ files: Ext4FileSystem) throws(DiskContentsError) -> [BootEntry] {
        var found: [BootEntry] = []
        for directory in ["/boot", ""] {
            let place = "\(directory)/loader/entries"
            var texts: [(name: String, text: String)] = []
            for name in try files.names(in: place).filter({ $0.hasSuffix(".conf") }).prefix(maximumEntries) {
                if let text = try text(files, "\(place)/\(name)") { texts.append((name, text)) }
            }
            // Paths are meant from the top of what is mounted at /boot.
            if let entry = BootEntry.bootLoaderSpecification(texts) {
                found.append(entry.mapPaths { $0.hasPrefix(directory + "/") ? $0 : directory + "/" + $0 })
            }
            for place in ["\(directory)/extlinux", "\(directory)/syslinux"] {
                for name in ["extlinux.conf", "syslinux.cfg"] {
                    guard let text = try text(files, "\(place)/\(name)"), let entry = BootEntry.extlinux(text) else {
                        continue
                    }
                    found.append(entry.mapPaths { $0.hasPrefix("/") ? $0 : "\(place)/\($0)" })
                }
            }
            for name in ["\(directory)/grub/grub.cfg", "\(directory)/grub2/grub.cfg"] {
                if let text = try text(files, name), let entry = BootEntry.grub(text) { found.append(entry) }
            }
            if let entry = BootEntry.newest(of: try files.names(in: directory + "/"), in: directory) {
                found.append(entry)
            }
        }
        return found
    }

    private static func text(_ files: Ext4FileSystem, _ path: String) throws(DiskContentsError) -> String? {
        try files.file(path, limit: maximumConfigurationSize).map { String(decoding: $0, as: UTF8.self) }
    }

    /// A file of the root file system's; nil if there is none of that name.
    public func rootFile(_ path: String) throws(DiskContentsError) -> [UInt8]? {
        try root.file(path, limit: Self.maximumKernelSize)
    }

    /// The file system that has an init, or the one that has the kernel.
    private static func root(of volumes: [Volume], found: Volume) throws(DiskContentsError) -> Volume {
        for volume in volumes where try !volume.files.names(in: "/sbin").isEmpty { return volume }
        return found
    }

    /// The entry's own, and `root=` if it has none.
    private static func commandLine(_ entry: BootEntry, root: String) -> String {
        guard entry.parameter("root") == nil else { return entry.commandLine }
        return (entry.commandLine.isEmpty ? "" : entry.commandLine + " ") + "root=\(root) ro"
    }
}
