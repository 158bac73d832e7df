import BlockFormats
import Glibc
import GuestAgent
import MachineStore

/// Images of Debian, made by Debian's own programs from the mirror that this host's apt uses.
enum DebianImage {
    /// Releases by their names; the first is what `debian` alone means.
    private static let suites = ["bookworm", "trixie"]
    private static let name = "debian"

    static var names: [String] { [name] + suites.map { "\(name):\($0)" } }

    /// The release that an image's name means; nil if it means something else.
    static func suite(of text: String) -> String? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts[0] == name else { return nil }
        if parts.count == 1 || parts[1] == "latest" { return suites[0] }
        return parts.count == 2 && suites.contains(parts[1]) ? parts[1] : nil
    }

    static func check(_ text: String) throws -> String {
        if let suite = suite(of: text) { return suite }
        throw StoreError(
            "'\(text)' cannot be pulled; choose from: \(names.joined(separator: ", ")); 'davit image import' takes disks"
        )
    }

    /// Makes the image, unless it is there and whole.
    static func pull(_ suite: String, into store: ImageStore, again: Bool = false) throws -> StoredImage {
        let names = ["\(name):\(suite)"] + (suite == suites[0] ? ["\(name):latest"] : [])
        let lock = try store.lockForPull { say("another pull is at work; waiting for its end") }
        if !again, let image = try store.all().first(where: { $0.names.contains(names[0]) }) {
            if try store.isWhole(image) {
                for name in names { try store.tag(image, name) }
                return image
            }
            say("\(names[0]) is not what it was when it was pulled, and is made anew")
            if try ImageCommand.users()[image.id] == nil { try store.remove(image) }
        }
        let image = try store.add(names: names) { disk in
            try make(disk, of: names[0], by: PackageResources.debian_sh, with: suite, inherited: lock.descriptor)
        }
        return withExtendedLifetime(lock) { image }
    }

    /// Makes an image of a tarball of a root file system, with Debian's kernel and the agent.
    static func importRoot(_ tarball: String, as name: String, into store: ImageStore) throws -> StoredImage {
        try store.add(names: [name]) { disk in
            try make(disk, of: name, by: PackageResources.root_sh, with: tarball, inherited: nil)
        }
    }

    /// Has a script make a raw disk of what it is given, and packs that.
    private static func make(
        _ disk: String, of name: String, by script: [UInt8], with source: String, inherited: Int32?
    ) throws {
        let raw = disk + ".raw"
        let text = String(decoding: PackageResources.guest_files_sh + script, as: UTF8.self)
        let agent = String(decoding: GuestSession.agent, as: UTF8.self)
        let status = try HostProgram.run(["sh", "-c", text, "sh", source, raw, agent], inherited: inherited)
        guard status == 0 else {
            throw CommandFailure(
                status: status == ExitStatus.unavailable ? status : ExitStatus.noSuchState,
                description: "\(name) could not be made; the lines above say why")
        }
        say("packing \(name)")
        var options = DiskOptions()
        options.format = .raw
        try DiskCommand.perform { () throws(DiskError) in
            try DiskFile.convert(raw, options, to: disk, format: .qcow2)
        }
        unlink(raw)
    }

    private static func say(_ line: String) { DavitCommand.complain(line) }
}
