import FileShares
import HostLinux
import VirtioDevices

/// A directory of the host's that the guest reaches by virtio-fs.
public struct SharedFolder: Equatable, Sendable {
    /// On the host.
    public var path: String
    /// Where it is mounted in the guest, or nil for a guest that is to mount it by its tag itself.
    public var mountPoint: String?
    /// What the guest mounts, 1 to 36 bytes.
    public var tag: String
    public var isReadOnly: Bool
    /// The guest may make programs that run with their owner's rights on the host too.
    public var keepsSetID: Bool

    public init(
        path: String, mountPoint: String? = nil, tag: String, isReadOnly: Bool = false, keepsSetID: Bool = false
    ) {
        self.path = path
        self.mountPoint = mountPoint
        self.tag = tag
        self.isReadOnly = isReadOnly
        self.keepsSetID = keepsSetID
    }

    /// Reads `HOST:GUEST` or `HOST:GUEST:OPTION,...`, where GUEST is an absolute path or a tag. `number` tells folders apart.
    public init(parsing text: String, number: Int) throws(MachineError) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2 || parts.count == 3, !parts[0].isEmpty, !parts[1].isEmpty else {
            throw MachineError(
                .configuration, "--volume '\(text)' is not a folder; write HOST:GUEST, such as ./site:/srv/site:ro")
        }
        let isPath = parts[1].hasPrefix("/")
        self.init(path: parts[0], mountPoint: isPath ? parts[1] : nil, tag: isPath ? "volume\(number)" : parts[1])
        for option in parts.dropFirst(2).flatMap({ $0.split(separator: ",", omittingEmptySubsequences: false) }) {
            switch option {
            case "ro": isReadOnly = true
            case "rw": isReadOnly = false
            case "setuid": keepsSetID = true
            default:
                throw MachineError(
                    .configuration, "--volume '\(text)': '\(option)' is not known; choose from ro, rw, setuid")
            }
        }
    }

    func validate() throws(MachineError) {
        // What the kernel's command line and systemd take as it stands.
        let isPlain = (mountPoint ?? tag).utf8.allSatisfy { byte in
            UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte || UInt8(ascii: "A")...UInt8(ascii: "Z") ~= byte
                || UInt8(ascii: "0")...UInt8(ascii: "9") ~= byte || "/._-+@".utf8.contains(byte)
        }
        guard isPlain else {
            throw MachineError(
                .configuration,
                "--volume \(path): '\(mountPoint ?? tag)' has characters that cannot be told to the guest; take letters, digits and ._-+@"
            )
        }
        if let mountPoint,
            mountPoint.split(separator: "/").contains(where: { $0 == ".." || $0 == "." })
                || mountPoint.allSatisfy({ $0 == "/" })
        {
            throw MachineError(
                .configuration, "--volume \(path): '\(mountPoint)' is no place to mount; give a path such as /srv/site")
        }
        guard 1...VirtioFS.tagLength ~= tag.utf8.count else {
            throw MachineError(
                .configuration,
                "--volume \(path): the tag '\(tag)' is too long; give \(VirtioFS.tagLength) bytes at most")
        }
    }

    /// How the guest is told, as a word on the kernel's command line: `davit.volume=TAG:PATH` with `:ro`. Nil if it mounts it itself.
    var commandLineWord: String? {
        mountPoint.map { "davit.volume=\(tag):\($0)\(isReadOnly ? ":ro" : "")" }
    }
}

/// A folder of the machine. It outlives a reset.
struct MachineShare: Sendable {
    let name: String
    let tag: String
    let server: FUSEServer

    init(_ folder: SharedFolder, number: Int) throws(MachineError) {
        name = "share\(number)"
        tag = folder.tag
        do throws(SystemError) {
            server = try FUSEServer(
                name: name, path: folder.path, isReadOnly: folder.isReadOnly, keepsSetID: folder.keepsSetID)
        } catch {
            throw MachineError(
                .file,
                "--volume \(folder.path): \(error); give a directory that you may read\(folder.isReadOnly ? "" : " and write, or add :ro")"
            )
        }
    }
}
