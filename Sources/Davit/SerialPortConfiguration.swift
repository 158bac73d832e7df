import VMRuntime

/// A 16550 serial port and what is plugged into it.
public struct SerialPortConfiguration: Sendable {
    public struct Attachment: Sendable {
        /// As the catalog knows it.
        public let choice: ComponentChoice

        public init(_ choice: ComponentChoice) { self.choice = choice }

        /// The process's standard input and output; a terminal is raw while the guest runs.
        public static let standardStreams = Attachment(ComponentChoice("stdio"))
        public static let nothing = Attachment(ComponentChoice("none"))
        /// A Unix socket that one program at a time connects to.
        public static func socket(path: String) -> Attachment {
            Attachment(ComponentChoice("socket", settings: ["path": path]))
        }
        /// Output goes to a file, which is emptied first.
        public static func file(path: String) -> Attachment {
            Attachment(ComponentChoice("file", settings: ["path": path]))
        }
    }

    public var attachment: Attachment

    public init(attachment: Attachment) { self.attachment = attachment }
}

/// A port of the virtio console and what it leads to.
public struct ConsolePortConfiguration: Sendable {
    public var attachment: SerialPortConfiguration.Attachment
    /// By which programs in the guest find it; nil for a console.
    public var name: String?

    public init(attachment: SerialPortConfiguration.Attachment, name: String? = nil) {
        self.attachment = attachment
        self.name = name
    }

    var choice: ComponentChoice {
        var choice = attachment.choice
        if let name { choice.settings["name"] = name }
        return choice
    }
}
