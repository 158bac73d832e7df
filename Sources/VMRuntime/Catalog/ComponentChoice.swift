/// A part chosen by name with its settings, as a user writes it: `debug-exit,port=0xf4`.
public struct ComponentChoice: Equatable, Sendable, CustomStringConvertible {
    public var name: String
    public var settings: [String: String]

    public init(_ name: String, settings: [String: String] = [:]) {
        self.name = name
        self.settings = settings
    }

    /// Reads a file's path with settings, `debian.qcow2,readonly=on`, as the part `name` whose setting `path` it is.
    public init(parsingPath text: String, as name: String, flag: String) throws(MachineError) {
        try self.init(parsing: text, flag: flag)
        if settings["path"] == nil && self.name != name {
            settings["path"] = self.name
            self.name = name
        }
    }

    /// Reads `name` or `name,key=value,...`. `flag` is where it was written, for the message.
    public init(parsing text: String, flag: String) throws(MachineError) {
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        let name = parts.first.map(String.init) ?? ""
        guard !name.isEmpty else {
            throw MachineError(.configuration, "\(flag) '\(text)' names nothing; write NAME or NAME,KEY=VALUE")
        }
        var settings: [String: String] = [:]
        for part in parts.dropFirst() {
            let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard pair.count == 2, !pair[0].isEmpty else {
                throw MachineError(.configuration, "\(flag) '\(text)': '\(part)' is not a setting; write KEY=VALUE")
            }
            guard settings.updateValue(String(pair[1]), forKey: String(pair[0])) == nil else {
                throw MachineError(.configuration, "\(flag) '\(text)' sets '\(pair[0])' twice; leave one")
            }
        }
        self.init(name, settings: settings)
    }

    public var description: String {
        ([name] + settings.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }).joined(separator: ",")
    }
}
