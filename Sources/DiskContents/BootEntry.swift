/// What a boot loader would start: paths in one file system, and a command line.
struct BootEntry: Equatable {
    var kernel: String
    /// In order; Linux takes them as one.
    var initrds: [String] = []
    /// Without the kernel's path.
    var commandLine = ""
}

/// The configurations of boot loaders: what each of them starts when nobody is at the keyboard, as far as one reads them without being
/// that boot loader.
extension BootEntry {
    /// Entries of the Boot Loader Specification (UAPI.1), by the names of their files.
    static func bootLoaderSpecification(_ files: [(name: String, text: String)]) -> BootEntry? {
        let entries = files.compactMap { file -> (version: String, entry: BootEntry)? in
            var entry = BootEntry(kernel: "")
            var version = file.name
            for (key, value) in lines(of: file.text) {
                switch key {
                case "linux": entry.kernel = value
                case "initrd": entry.initrds += words(value)
                case "options": entry.commandLine += (entry.commandLine.isEmpty ? "" : " ") + value
                case "version": version = value
                default: break
                }
            }
            return entry.kernel.isEmpty ? nil : (version, entry.withoutVariables)
        }
        return entries.max { KernelVersion($0.version) < KernelVersion($1.version) }?.entry
    }

    /// `extlinux.conf`: the default label, or the first.
    static func extlinux(_ text: String) -> BootEntry? {
        var chosen: String?
        var labels: [(name: String, entry: BootEntry)] = []
        for (key, value) in lines(of: text) {
            switch key {
            case "default": chosen = value
            case "label": labels.append((value, BootEntry(kernel: "")))
            case "linux", "kernel": if !labels.isEmpty { labels[labels.count - 1].entry.kernel = value }
            case "initrd":
                if !labels.isEmpty {
                    labels[labels.count - 1].entry.initrds = value.split(separator: ",").map(String.init)
                }
            case "append": if !labels.isEmpty { labels[labels.count - 1].entry.commandLine = value }
            default: break
            }
        }
        labels.removeAll { $0.entry.kernel.isEmpty }
        return (labels.first { $0.name == chosen } ?? labels.first)?.entry
    }

    /// `grub.cfg`: the first entry that starts Linux. It is a program; those that grub-mkconfig writes have that entry as their default.
    static func grub(_ text: String) -> BootEntry? {
        var entry: BootEntry?
        for (key, value) in lines(of: text) {
            switch key {
            case "linux", "linux16", "linuxefi":
                guard entry == nil else { return entry?.withoutVariables }
                let parts = words(value)
                guard let kernel = parts.first else { continue }
                entry = BootEntry(kernel: kernel, commandLine: parts.dropFirst().joined(separator: " "))
            case "initrd", "initrd16", "initrdefi": entry?.initrds = words(value)
            // The entry's end.
            case "}": if let entry { return entry.withoutVariables }
            default: break
            }
        }
        return entry?.withoutVariables
    }

    /// The newest kernel by the name of its file, with the initrd that goes by the same version.
    static func newest(of names: [String], in directory: String) -> BootEntry? {
        let prefix = "vmlinuz-"
        let versions = names.filter { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
            .filter { !$0.isEmpty && !$0.hasSuffix(".old") && !$0.contains("rescue") }
        guard let version = versions.max(by: { KernelVersion($0) < KernelVersion($1) }) else { return nil }
        let initrd = ["initrd.img-\(version)", "initramfs-\(version).img", "initrd-\(version)", "initramfs-\(version)"]
            .first(where: names.contains)
        return BootEntry(
            kernel: "\(directory)/\(prefix)\(version)", initrds: initrd.map { ["\(directory)/\($0)"] } ?? [])
    }

    /// The same with its paths changed.
    func mapPaths(_ change: (String) -> String) -> BootEntry {
        BootEntry(kernel: change(kernel), initrds: initrds.map(change), commandLine: commandLine)
    }

    /// What only the boot loader could fill in is left out.
    private var withoutVariables: BootEntry {
        var entry = self
        entry.initrds.removeAll { $0.contains("$") }
        entry.commandLine = Self.words(commandLine).filter { !$0.contains("$") }.joined(separator: " ")
        return entry
    }

    /// The value of a parameter of the command line, the last if there are several.
    func parameter(_ name: String) -> String? {
        Self.words(commandLine).last { $0.hasPrefix(name + "=") }.map { String($0.dropFirst(name.count + 1)) }
    }

    /// Lines as their first word, in small letters, and the rest; comments and empty lines aside.
    private static func lines(of text: String) -> [(key: String, value: String)] {
        text.split(whereSeparator: \.isNewline).compactMap { line in
            let parts = line.split(maxSplits: 1, whereSeparator: \.isWhitespace)
            guard let key = parts.first, !key.hasPrefix("#") else { return nil }
            let rest = parts.count > 1 ? parts[1].trimmingWhitespace : ""
            return (key.lowercased(), rest)
        }
    }

    private static func words(_ text: String) -> [String] {
        text.split(whereSeparator: \.isWhitespace).map(String.init)
    }
}

extension Substring {
    fileprivate var trimmingWhitespace: String {
        var text = drop(while: \.isWhitespace)
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}

/// Kernel versions in the order in which they came out: numbers as numbers, all else as text, and a release after its candidates.
struct KernelVersion: Comparable {
    private enum Part: Comparable {
        case candidate
        case end
        case text(String)
        case number(UInt64)
    }

    private let parts: [Part]

    init(_ text: String) {
        var parts: [Part] = []
        var rest = text[...]
        while let first = rest.first {
            let isDigit = first.isASCII && first.isNumber
            let run = rest.prefix { ($0.isASCII && $0.isNumber) == isDigit }
            rest = rest[run.endIndex...]
            if isDigit {
                parts.append(.number(UInt64(run) ?? .max))
            } else if run.contains("~") || run.hasPrefix("-rc") {
                parts.append(.candidate)
            } else {
                parts.append(.text(run.filter { $0.isLetter }))
            }
        }
        self.parts = parts + [.end]
    }

    static func < (a: KernelVersion, b: KernelVersion) -> Bool { a.parts.lexicographicallyPrecedes(b.parts) }
}
