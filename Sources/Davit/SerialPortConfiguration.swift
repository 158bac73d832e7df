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
        /// Output goes to a file, which is emptied first.
        public static func file(path: String) -> Attachment {
            Attachment(ComponentChoice("file", settings: ["path": path]))
        }
    }

    public var attachment: Attachment

    public init(attachment: Attachment) { self.attachment = attachment }
}
