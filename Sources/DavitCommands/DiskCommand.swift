import ArgumentParser
import BlockFormats
import Glibc
import VMRuntime

/// `davit disk`: makes and looks after disks in files, while no machine uses them.
struct DiskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disk", abstract: "Makes, converts, checks and resizes disks in files.",
        subcommands: [
            DiskCreateCommand.self, DiskInfoCommand.self, DiskConvertCommand.self, DiskCheckCommand.self,
            DiskResizeCommand.self, DiskSnapshotCommand.self,
        ])

    /// The format that a flag names; nil if it was not given.
    static func format(_ text: String?, _ flag: String) throws -> DiskFormat? {
        guard let text else { return nil }
        if let format = DiskFormat(rawValue: text) { return format }
        let names = DiskFormat.allCases.map(\.rawValue).joined(separator: ", ")
        throw MachineError(.configuration, "\(flag) '\(text)' is not known; choose from: \(names)")
    }

    /// A bare number counts bytes.
    static func size(_ text: String, _ what: String) throws -> UInt64 {
        if let size = ByteCount.parse(text, bareUnit: 1) { return size }
        throw MachineError(
            .configuration, "\(what) '\(text)' is not a size; give bytes, or a number with K, M, G or T, such as 20G")
    }

    /// Does what concerns a disk's file; what is wrong with it becomes an error with an exit status.
    static func perform<Value>(_ body: () throws(DiskError) -> Value) throws -> Value {
        do throws(DiskError) { return try body() } catch { throw MachineError(error) }
    }
}

/// How a new qcow2 image is to be.
struct Qcow2Flags: ParsableArguments {
    @Option(help: ArgumentHelp("A qcow2 cluster, 512 bytes to 2M. (default: 64K)", valueName: "size"))
    var clusterSize: String?
    @Option(help: ArgumentHelp("How qcow2 clusters are packed: zlib or zstd. (default: zlib)", valueName: "name"))
    var compression: String?

    func options() throws -> Qcow2Options {
        var options = Qcow2Options()
        if let clusterSize {
            let size = try DiskCommand.size(clusterSize, "--cluster-size")
            guard size >= 512, size <= 2 << 20, size & (size - 1) == 0 else {
                throw MachineError(
                    .configuration, "--cluster-size '\(clusterSize)' cannot be; give a power of two from 512 to 2M")
            }
            options.clusterBits = UInt32(size.trailingZeroBitCount)
        }
        switch compression {
        case nil, "zlib": break
        case "zstd": options.isZstd = true
        default:
            throw MachineError(.configuration, "--compression '\(compression ?? "")' is not known; choose zlib or zstd")
        }
        return options
    }
}

struct DiskCreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Makes an empty disk.")

    @Argument(help: "The new file.")
    var file: String
    @Argument(help: "The disk's size, such as 20G; with --backing it may be left out.")
    var size: String?
    @Option(help: "raw or qcow2. (default: by the file's name)")
    var format: String?
    @Option(help: ArgumentHelp("The image that is read underneath.", valueName: "file"))
    var backing: String?
    @Option(help: ArgumentHelp("Its format, if its name does not say it.", valueName: "format"))
    var backingFormat: String?
    @OptionGroup var qcow2: Qcow2Flags

    func run() throws {
        let stated = try DiskCommand.format(format, "--format")
        let format = try DiskCommand.perform { () throws(DiskError) in
            if let stated { stated } else { try DiskFormat.named(file) }
        }
        var options = try qcow2.options()
        var bytes = try size.map { try DiskCommand.size($0, "the size") }
        if let backing {
            guard format == .qcow2 else {
                throw MachineError(.configuration, "--backing: only qcow2 has an image underneath; add --format qcow2")
            }
            let stated = try DiskCommand.format(backingFormat, "--backing-format")
            // A relative name is meant from the new image's directory.
            let below = try DiskCommand.perform { () throws(DiskError) in
                try DiskFile.information(DiskFile.resolve(backing, besides: file), format: stated)
            }
            options.backing = (backing, below.format)
            bytes = bytes ?? below.size
        }
        guard let bytes else { throw ValidationError("the size is missing: write it behind the file, such as 20G") }
        try DiskCommand.perform { () throws(DiskError) in
            try DiskFile.create(file, format: format, size: bytes, options)
        }
    }
}

struct DiskInfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "info", abstract: "Tells what is in a disk's file.")

    @Argument(help: "The file.")
    var file: String
    @Option(help: "Its format. (default: by its name and content)")
    var format: String?

    func run() throws {
        let stated = try DiskCommand.format(format, "--format")
        let found = try DiskCommand.perform { () throws(DiskError) in try DiskFile.information(file, format: stated) }
        print("format: \(found.format.rawValue)")
        print("size: \(ByteCount.describe(found.size))")
        print("on the host: \(ByteCount.describe(found.allocated))")
        for (name, value) in found.details { print("\(name): \(value)") }
        if !found.snapshots.isEmpty { print("snapshots: \(found.snapshots.map(\.name).joined(separator: ", "))") }
    }
}

struct DiskConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Copies a disk into a new file, in another format or anew in the same.")

    @Argument(help: "The disk's file.")
    var source: String
    @Argument(help: "The new file.")
    var target: String
    @Option(help: "The source's format. (default: by its name and content)")
    var from: String?
    @Option(help: "The new file's format, raw or qcow2. (default: by its name)")
    var to: String?
    @Option(help: "Copies this snapshot of a qcow2 image.")
    var snapshot: String?
    @Flag(help: "Follows the source to images that it names as read underneath.")
    var backing = false
    @Flag(help: "Packs the clusters of a new qcow2 image.")
    var compress = false
    @OptionGroup var qcow2: Qcow2Flags

    func run() throws {
        var options = DiskOptions()
        options.format = try DiskCommand.format(from, "--from")
        options.followsBackingFiles = backing
        options.snapshot = snapshot
        let new = try qcow2.options()
        let stated = try DiskCommand.format(to, "--to")
        try DiskCommand.perform { () throws(DiskError) in
            let format = if let stated { stated } else { try DiskFormat.named(target) }
            try DiskFile.convert(source, options, to: target, format: format, new, packs: compress)
        }
    }
}

struct DiskCheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Looks through a qcow2 image for what contradicts itself.")

    @Argument(help: "The file.")
    var file: String
    @Flag(help: "Makes refcounts right, where no data are in doubt.")
    var repair = false

    func run() throws {
        let check = try DiskCommand.perform { () throws(DiskError) in try DiskFile.check(file, repairs: repair) }
        for finding in check.findings { print(finding) }
        if check.corruptions > 0 {
            throw MachineError(.image, "\(file): \(check.corruptions) errors: try --repair on a copy")
        }
        if check.leaks > 0 {
            throw MachineError(.image, "\(file): \(check.leaks) clusters that nobody uses: --repair gives them back")
        }
        print("no errors; \(check.dataClusters) clusters of data")
    }
}

struct DiskResizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resize", abstract: "Makes a disk larger.")

    @Argument(help: "The file.")
    var file: String
    @Argument(help: "The disk's new size, such as 40G.")
    var size: String
    @Option(help: "The file's format. (default: by its name and content)")
    var format: String?

    func run() throws {
        let bytes = try DiskCommand.size(size, "the size")
        let stated = try DiskCommand.format(format, "--format")
        try DiskCommand.perform { () throws(DiskError) in try DiskFile.resize(file, format: stated, to: bytes) }
    }
}

struct DiskSnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot", abstract: "Lists a qcow2 image's snapshots.", subcommands: [List.self])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "One snapshot a line: number, time (UTC), size, name.")

        @Argument(help: "The file.")
        var file: String

        func run() throws {
            let found = try DiskCommand.perform { () throws(DiskError) in
                try DiskFile.information(file, format: .qcow2)
            }
            for snapshot in found.snapshots {
                var seconds = time_t(snapshot.seconds)
                var date = tm()
                gmtime_r(&seconds, &date)
                var text = [CChar](repeating: 0, count: 32)
                strftime(&text, text.count, "%Y-%m-%d %H:%M:%S", &date)
                let when = text.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
                print("\(snapshot.id)\t\(when)\t\(ByteCount.describe(snapshot.size ?? found.size))\t\(snapshot.name)")
            }
        }
    }
}
