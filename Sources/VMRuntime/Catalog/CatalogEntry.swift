/// A part that a machine can be given by name: what help, validation and documentation say about it, and how it is made.
public struct CatalogEntry<Context, Part>: Sendable {
    typealias Make = @Sendable (ComponentSettings, Context) throws(MachineError) -> Part

    public let name: String
    /// One line, without a full stop.
    public let summary: String
    public let options: [CatalogOption]
    let make: Make

    init(_ name: String, summary: String, options: [CatalogOption] = [], make: @escaping Make) {
        self.name = name
        self.summary = summary
        self.options = options
        self.make = make
    }
}

/// The parts of one kind, with the flag that chooses among them.
public struct CatalogSection<Context, Part>: Sendable {
    /// For instance `--engine`.
    public let flag: String
    public let entries: [CatalogEntry<Context, Part>]

    /// Throws unless the choice names an entry and gives it settings that it understands.
    func validate(_ choice: ComponentChoice) throws(MachineError) {
        _ = try settings(for: choice, of: try entry(for: choice))
    }

    /// Makes the part that was chosen.
    func make(_ choice: ComponentChoice, _ context: Context) throws(MachineError) -> Part {
        let entry = try entry(for: choice)
        return try entry.make(try settings(for: choice, of: entry), context)
    }

    private func entry(for choice: ComponentChoice) throws(MachineError) -> CatalogEntry<Context, Part> {
        if let entry = entries.first(where: { $0.name == choice.name }) { return entry }
        let names = entries.map(\.name).joined(separator: ", ")
        throw MachineError(.configuration, "\(flag) '\(choice.name)' is not known; choose from: \(names)")
    }

    private func settings(
        for choice: ComponentChoice, of entry: CatalogEntry<Context, Part>
    ) throws(MachineError) -> ComponentSettings {
        let known = entry.options.map(\.name)
        if let stray = choice.settings.keys.sorted().first(where: { !known.contains($0) }) {
            let mend = known.isEmpty ? "it has none; leave it out" : "choose from: \(known.joined(separator: ", "))"
            throw MachineError(.configuration, "\(flag) \(choice.name) has no setting '\(stray)'; \(mend)")
        }
        var values: [String: String] = [:]
        for option in entry.options {
            guard let value = choice.settings[option.name] ?? option.defaultValue else {
                throw MachineError(
                    .configuration,
                    "\(flag) \(choice.name) does not say \(option.summary); write \(choice.name),\(option.name)=...")
            }
            if let wanted = option.objection(value) {
                throw MachineError(
                    .configuration, "\(flag) \(choice.name): \(option.name)='\(value)' cannot be; give \(wanted)")
            }
            values[option.name] = value
        }
        return ComponentSettings(values)
    }
}

/// A setting of a part.
public struct CatalogOption: Sendable {
    public let name: String
    /// A phrase that completes "it says ...", such as "which port".
    public let summary: String
    /// The value it has when it is not written; nil if it must be written.
    public let defaultValue: String?
    /// Nil if the text can be a value of this option, else what to give instead.
    let objection: @Sendable (String) -> String?

    /// A number from `least` to `limit`, decimal or 0x.
    static func number(
        _ name: String, _ summary: String, defaultValue: String?, from least: UInt64 = 0, upTo limit: UInt64
    ) -> CatalogOption {
        CatalogOption(name: name, summary: summary, defaultValue: defaultValue) { text in
            if let number = parseNumber(text), number >= least, number <= limit { return nil }
            return "a number from \(least) to 0x\(String(limit, radix: 16))"
        }
    }

    /// One of a few words.
    static func choice(_ name: String, _ summary: String, defaultValue: String?, of words: [String]) -> CatalogOption {
        CatalogOption(name: name, summary: summary, defaultValue: defaultValue) {
            words.contains($0) ? nil : words.joined(separator: " or ")
        }
    }

    /// `on` or `off`.
    static func flag(_ name: String, _ summary: String, defaultValue: Bool) -> CatalogOption {
        choice(name, summary, defaultValue: defaultValue ? "on" : "off", of: ["on", "off"])
    }

    /// Any text, or none.
    static func text(_ name: String, _ summary: String) -> CatalogOption {
        CatalogOption(name: name, summary: summary, defaultValue: "") { _ in nil }
    }

    static func path(_ name: String, _ summary: String) -> CatalogOption {
        CatalogOption(name: name, summary: summary, defaultValue: nil) { $0.isEmpty ? "a path" : nil }
    }

    fileprivate static func parseNumber(_ text: String) -> UInt64? {
        text.lowercased().hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
    }
}

/// The settings of a part that have been found good: every option has a value.
struct ComponentSettings: Sendable {
    private let values: [String: String]

    fileprivate init(_ values: [String: String]) { self.values = values }

    func text(_ option: String) -> String { values[option] ?? "" }
    func isOn(_ option: String) -> Bool { text(option) == "on" }
    func number(_ option: String) -> UInt64 { CatalogOption.parseNumber(text(option)) ?? 0 }
}
