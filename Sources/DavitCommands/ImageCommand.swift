import ArgumentParser
import BlockFormats
import Glibc
import MachineStore
import VMRuntime

/// `davit image`: the disks that machines begin from.
struct ImageCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "image", abstract: "Keeps and looks after the disks that machines begin from.",
        subcommands: [
            ImageListCommand.self, ImageInspectCommand.self, ImageRemoveCommand.self,
            ImagePruneCommand.self, ImagePullCommand.self, ImageImportCommand.self, ImageExportCommand.self,
        ])

    static func store() throws -> ImageStore { ImageStore(in: try MachineStore()) }

    static func json(_ image: StoredImage) -> JSON {
        JSON([
            "id": .string(image.id), "names": .array(image.names.map(JSON.string)), "size": .number(image.size),
            "created": .number(image.created), "disk": .string(image.disk),
        ])
    }

    /// Images by the machines whose disks lie over them.
    static func users() throws -> [String: [String]] {
        var users: [String: [String]] = [:]
        for machine in try MachineStore().all() {
            if let image = machine.configuration.image { users[image, default: []].append(machine.name) }
        }
        return users
    }
}

struct ImageListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "Lists images.", aliases: ["ls"])

    @Flag(name: [.short, .long], help: "Names only; of an image without one, its number.")
    var quiet = false
    @Option(help: "table or json.")
    var format = OutputFormat.table

    func run() throws {
        let images = try ImageCommand.store().all()
        if quiet {
            for image in images { for name in image.names.isEmpty ? [image.id] : image.names { print(name) } }
        } else if format == .json {
            print(JSON.array(images.map(ImageCommand.json)))
        } else {
            let rows = images.map {
                [
                    $0.names.isEmpty ? "-" : $0.names.joined(separator: " "), String($0.id.prefix(12)),
                    ByteCount.describe(UInt64(max($0.size, 0))),
                ]
            }
            print(ListCommand.table([["NAME", "ID", "SIZE"]] + rows))
        }
    }
}

struct ImageInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Tells all that is known of images.")

    @Argument(help: "Names, or the first digits of numbers.", completion: .images)
    var images: [String]

    func run() throws {
        let store = try ImageCommand.store()
        print(JSON.array(try images.map { ImageCommand.json(try store.find($0)) }))
    }
}

struct ImageRemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Removes images that no machine lies over.", aliases: ["rm"])

    @Argument(help: "Names, or the first digits of numbers.", completion: .images)
    var images: [String]

    func run() throws {
        let store = try ImageCommand.store()
        let users = try ImageCommand.users()
        for text in images {
            let image = try store.find(text)
            let name = try? ImageStore.fullName(text)
            let isOneOfSeveral = image.names.count > 1 && name.map(image.names.contains) == true
            if let machines = users[image.id], !isOneOfSeveral {
                throw StoreError(
                    "image '\(text)' is what machine '\(machines[0])' lies over; 'davit remove \(machines[0])' first")
            }
            try store.remove(image, name: isOneOfSeveral ? name : nil)
            print(text)
        }
    }
}

struct ImagePruneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Removes images that have no name and that no machine lies over.")

    @Flag(name: [.short, .long], help: "Those with names too.")
    var all = false

    func run() throws {
        let store = try ImageCommand.store()
        let users = try ImageCommand.users()
        for image in try store.all() where users[image.id] == nil && (all || image.names.isEmpty) {
            try store.remove(image)
            print(image.id)
        }
    }
}

struct ImagePullCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pull", abstract: "Makes an image of Debian, from the mirror that this host's apt uses.")

    @Flag(help: "Makes it anew if it is there already.")
    var again = false
    @Argument(help: "debian, or debian:RELEASE.", completion: .list(DebianImage.names))
    var name: String

    func run() throws {
        print(try DebianImage.pull(DebianImage.check(name), into: ImageCommand.store(), again: again).id)
    }
}

struct ImageImportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "import",
        abstract: "Makes an image of a disk in a file: raw, qcow2, VMDK, VHDX; or of a tarball of a root file system.",
        discussion:
            "A tarball needs systemd in it, and perl for the agent; it gets the kernel that 'davit image pull debian' has fetched."
    )

    @Option(help: "The file's format; tar for a tarball. (default: by its name and content)")
    var format: String?
    @Argument(help: "The disk's file, or the tarball.", completion: .file())
    var file: String
    @Argument(help: "The image's name.")
    var name: String

    func run() throws {
        let isTarball =
            format.map { $0 == "tar" }
            ?? [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2"].contains(where: file.hasSuffix)
        guard !isTarball else {
            guard access(file, R_OK) == 0 else {
                throw MachineError(.file, "'\(file)' cannot be read (\(String(cString: strerror(errno))))")
            }
            return print(try DebianImage.importRoot(file, as: name, into: ImageCommand.store()).id)
        }
        var options = DiskOptions()
        options.format = try DiskCommand.format(format, "--format")
        let image = try ImageCommand.store().add(names: [name]) { disk in
            try DiskCommand.perform { () throws(DiskError) in
                try DiskFile.convert(file, options, to: disk, format: .qcow2)
            }
        }
        print(image.id)
    }
}

struct ImageExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Copies an image's disk into a file, raw or qcow2.")

    @Option(help: "raw or qcow2. (default: by the file's name)")
    var format: String?
    @Argument(help: "The image.", completion: .images)
    var image: String
    @Argument(help: "The new file.")
    var file: String

    func run() throws {
        let image = try ImageCommand.store().find(image)
        let stated = try DiskCommand.format(format, "--format")
        var options = DiskOptions()
        options.format = .qcow2
        try DiskCommand.perform { () throws(DiskError) in
            let format = if let stated { stated } else { try DiskFormat.named(file) }
            try DiskFile.convert(image.disk, options, to: file, format: format)
        }
    }
}
