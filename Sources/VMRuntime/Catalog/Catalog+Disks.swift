import BlockFormats
import MachineModel

/// Which disk of the machine is being opened.
public struct DiskContext: Sendable {
    let number: Int
}

/// A disk of the machine. It outlives a reset.
public struct MachineDisk: Sendable {
    let name: String
    let serial: String
    let device: any BlockDevice
    let transport: VirtioTransportKind
}

extension Catalog {
    /// What a disk can be.
    public static let disks = CatalogSection<DiskContext, MachineDisk>(
        flag: "--disk",
        entries: [
            CatalogEntry(
                "image", summary: "a file on the host; its path may stand alone, as in --disk debian.qcow2",
                options: [
                    .path("path", "which file"),
                    .choice(
                        "format", "how the disk lies in the file", defaultValue: "auto",
                        of: ["auto"] + DiskFormat.allCases.map(\.rawValue)),
                    .flag("readonly", "whether the guest may only read", defaultValue: false),
                    .choice(
                        "cache", "when the guest's data is safe", defaultValue: CacheMode.writeback.rawValue,
                        of: CacheMode.allCases.map(\.rawValue)),
                    .flag(
                        "backing", "whether an image may name another file that is read underneath",
                        defaultValue: false),
                    .text("snapshot", "which snapshot of a qcow2 image is read, if not its present state"),
                    .text("serial", "which serial number the guest sees"),
                    .transport,
                    .number("iops", "how many requests a second; 0 is no limit", defaultValue: "0", upTo: .max),
                    .number("bps", "how many bytes a second; 0 is no limit", defaultValue: "0", upTo: .max),
                ]
            ) { (settings, context) throws(MachineError) in
                var options = DiskOptions()
                options.format = DiskFormat(rawValue: settings.text("format"))
                options.isReadOnly = settings.isOn("readonly")
                options.cache = CacheMode(rawValue: settings.text("cache")) ?? .writeback
                options.followsBackingFiles = settings.isOn("backing")
                if !settings.text("snapshot").isEmpty { options.snapshot = settings.text("snapshot") }
                options.limits.operations = settings.number("iops")
                options.limits.bytes = settings.number("bps")
                do throws(DiskError) {
                    let serial = settings.text("serial")
                    return MachineDisk(
                        name: "disk\(context.number)", serial: serial.isEmpty ? "davit-\(context.number)" : serial,
                        device: try Disk.open(settings.text("path"), options), transport: settings.transport)
                } catch {
                    throw MachineError(error, flag: "--disk")
                }
            }
        ])
}

extension MachineError {
    /// What a disk's file is wrong with; `flag` gave it, if one did.
    public init(_ error: DiskError, flag: String? = nil) {
        let kind: Kind =
            switch error.reason {
            case .unreadable, .inUse: .file
            case .formatNotStated, .backingNotAllowed, .badRequest: .configuration
            case .notThatFormat, .unsupported, .truncated, .malformed: .image
            }
        self.init(kind, (flag.map { $0 + " " } ?? "") + error.description)
    }
}
