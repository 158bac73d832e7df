/// What is kept of how a machine was made.
public struct StoredConfiguration: Equatable, Sendable {
    /// Seconds since 1970.
    public var created: Int64
    /// Where it was made: relative paths in `arguments` are meant from there.
    public var directory: String
    /// The machine's flags, as `davit run` takes them.
    public var arguments: [String]
    /// The machine is removed when its run ends.
    public var isRemovedAtEnd: Bool
    /// The image over which the machine's own disk lies, if it has one.
    public var image: String?
    /// The davit.yaml that made it, if one did: an absolute path.
    public var file: String?
    /// NAME=VALUE, for each program that is run in the guest.
    public var environment: [String] = []
    public var restart = RestartPolicy.no

    public init(created: Int64, directory: String, arguments: [String], isRemovedAtEnd: Bool, image: String? = nil) {
        self.created = created
        self.directory = directory
        self.arguments = arguments
        self.isRemovedAtEnd = isRemovedAtEnd
        self.image = image
    }

    private static let version: Int64 = 1

    var json: JSON {
        JSON([
            "version": .number(Self.version), "created": .number(created), "directory": .string(directory),
            "arguments": .array(arguments.map(JSON.string)), "removeAtEnd": .bool(isRemovedAtEnd),
            "image": image.map(JSON.string) ?? .null, "file": file.map(JSON.string) ?? .null,
            "environment": .array(environment.map(JSON.string)), "restart": .string(restart.description),
        ])
    }

    /// Nil unless it was written by this version.
    init?(_ json: JSON) {
        guard json["version"]?.number == Self.version, let created = json["created"]?.number,
            let directory = json["directory"]?.text, let arguments = json["arguments"]?.elements,
            let isRemovedAtEnd = json["removeAtEnd"]?.flag
        else { return nil }
        self.init(
            created: created, directory: directory, arguments: arguments.compactMap(\.text),
            isRemovedAtEnd: isRemovedAtEnd, image: json["image"]?.text)
        file = json["file"]?.text
        environment = json["environment"]?.elements?.compactMap(\.text) ?? []
        restart = json["restart"]?.text.flatMap(RestartPolicy.init) ?? .no
    }
}

/// How a machine's last run ended.
public struct EndRecord: Equatable, Sendable {
    /// The exit status that `davit run` has for it.
    public var status: Int32
    /// What there is to tell, if anything.
    public var message: String?
    /// Seconds since 1970.
    public var time: Int64

    public init(status: Int32, message: String?, time: Int64) {
        self.status = status
        self.message = message
        self.time = time
    }

    public var json: JSON {
        JSON([
            "status": .number(Int64(status)), "message": message.map(JSON.string) ?? .null, "time": .number(time),
        ])
    }

    public init?(_ json: JSON) {
        guard let status = json["status"]?.number, let time = json["time"]?.number else { return nil }
        self.init(status: Int32(truncatingIfNeeded: status), message: json["message"]?.text, time: time)
    }
}
