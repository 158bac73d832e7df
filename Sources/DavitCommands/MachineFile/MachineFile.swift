import ArgumentParser
import Glibc
import MachineStore
import VMRuntime
import YAML

/// The flags that a davit.yaml's values are.
struct MachineFileFlags: ParsableArguments {
    @OptionGroup var machine: MachineFlags
    @OptionGroup var keeping: KeepingFlags
}

/// A davit.yaml: machines by their names, in the order in which they are written.
struct MachineFile {
    /// What is written of one machine.
    struct Description {
        let name: String
        /// Where its name stands.
        let line: Int
        var image: String?
        var cloudInit: String?
        var environment: [String] = []
        /// For each value its flag and itself, and where it stands.
        var flags: [(words: [String], line: Int)] = []

        var arguments: [String] { flags.flatMap(\.words) }
    }

    private static let sizeLimit = 1 << 20

    /// As the user named it.
    let name: String
    /// Absolute, and without links: what the machines are known by as this file's.
    let path: String
    let machines: [Description]

    /// The directory from which the file's relative paths are meant.
    var directory: String { String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) }

    init(_ name: String) throws {
        self.name = name
        guard let real = realpath(name, nil) else { throw Self.unreadable(name) }
        path = String(cString: real)
        free(real)
        let text = try Self.contents(name)
        do throws(YAMLError) { machines = try Self.machines(in: YAMLNode(parsing: text)) } catch {
            throw MachineError(.configuration, "\(name):\(error.line): \(error.problem)")
        }
    }

    /// Those of the names, or all.
    func chosen(_ names: [String]) throws -> [Description] {
        for wanted in names where !machines.contains(where: { $0.name == wanted }) {
            throw StoreError(
                "'\(name)' has no machine '\(wanted)'; it has: \(machines.map(\.name).joined(separator: ", "))")
        }
        return names.isEmpty ? machines : machines.filter { names.contains($0.name) }
    }

    /// The machine's flags; what is wrong with them is said of the line that has it.
    func flags(of machine: Description) throws -> MachineFileFlags {
        try at(machine) {
            do { return try Self.check(machine.arguments, machine) } catch {
                // The culprit is the value without which all is good, or else something else is wrong.
                let message = Self.message(error)
                let others = machine.flags.indices.map { place in
                    var rest = machine.flags
                    rest.remove(at: place)
                    do {
                        _ = try Self.check(rest.flatMap(\.words), machine)
                        return ""
                    } catch { return Self.message(error) }
                }
                guard let place = others.firstIndex(of: "") ?? others.firstIndex(where: { $0 != message }) else {
                    throw error
                }
                throw Culprit(line: machine.flags[place].line, message: message)
            }
        }
    }

    /// What is wrong, and where.
    private struct Culprit: Error {
        let line: Int
        let message: String
    }

    private static func check(_ arguments: [String], _ machine: Description) throws -> MachineFileFlags {
        let flags = try MachineFileFlags.parse(arguments)
        _ = try flags.machine.makeLog()
        // The disk's own file is not looked at here.
        try flags.machine.makeConfiguration(rootDisk: machine.image).validate()
        return flags
    }

    /// Does what concerns a machine; an error gets the place of the value that it names, or else the machine's.
    func at<Result>(_ machine: Description, _ body: () throws -> Result) throws -> Result {
        do { return try body() } catch {
            let culprit = error as? Culprit
            var message = culprit?.message ?? Self.message(error)
            let value = machine.flags.first { $0.words.count > 1 && message.contains("'\($0.words[1])'") }
            // Who wrote the file knows keys, not flags.
            for key in MachineFileKey.all {
                if let flag = key.flag { message.replace(flag + " ", with: key.name + " ") }
            }
            throw MachineError(.configuration, "\(name):\(culprit?.line ?? value?.line ?? machine.line): \(message)")
        }
    }

    private static func message(_ error: any Error) -> String {
        switch error {
        case let error as MachineError: error.description
        case let error as StoreError: error.description
        case let error as CommandFailure: error.description
        default: MachineFileFlags.message(for: error)
        }
    }

    private static func unreadable(_ name: String) -> MachineError {
        let reason = String(cString: strerror(errno))
        let mend = name == UpCommand.usualFile ? "; write one, or name another with --file" : ""
        return MachineError(.file, "'\(name)' cannot be read (\(reason))\(mend)")
    }

    private static func contents(_ name: String) throws -> [UInt8] {
        let file = open(name, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw unreadable(name) }
        defer { close(file) }
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(file, &buffer, buffer.count)
            guard count >= 0 else { throw unreadable(name) }
            if count == 0 { return text }
            text += buffer[..<count]
            guard text.count <= sizeLimit else {
                throw MachineError(.file, "'\(name)' is larger than 1 MiB, which no davit.yaml needs to be")
            }
        }
    }
}
