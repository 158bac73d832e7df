import Glibc

/// Where named machines are kept: a directory for each in `machines/`.
///
/// A machine is there or it is not: it is made under a name that no machine can have, and renamed; it is renamed before it is removed.
public struct MachineStore: Sendable {
    /// An absolute path.
    public let path: String

    /// `$DAVIT_HOME`, or `davit` where the XDG base directory specification has a user's data: `$XDG_DATA_HOME`, `~/.local/share`.
    public init(environment: (String) -> String? = { getenv($0).map { String(cString: $0) } }) throws(StoreError) {
        if let home = environment("DAVIT_HOME"), !home.isEmpty {
            guard home.hasPrefix("/") else { throw StoreError("DAVIT_HOME '\(home)' is no absolute path; give one") }
            path = home
        } else if let data = environment("XDG_DATA_HOME"), data.hasPrefix("/") {
            path = data + "/davit"
        } else if let home = environment("HOME"), home.hasPrefix("/") {
            path = home + "/.local/share/davit"
        } else {
            throw StoreError("HOME is not set: set DAVIT_HOME to the directory where machines are to be kept")
        }
    }

    private var machines: String { path + "/machines" }
    /// Directories that are coming or going are called so; a machine's name cannot begin with a dot.
    private static let passing = "."

    /// Throws unless a machine may be called so.
    public static func check(name: String) throws(StoreError) {
        let letters = name.utf8
        let isGood = letters.allSatisfy {
            Character(Unicode.Scalar($0)).isASCII
                && (Character(Unicode.Scalar($0)).isLetter || Character(Unicode.Scalar($0)).isNumber
                    || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "."))
        }
        guard isGood, letters.count <= 63, let first = name.first, first.isLetter || first.isNumber else {
            throw StoreError(
                "'\(name)' cannot be a machine's name; give letters, digits, '-', '_' and '.', 63 at most, a letter or digit first"
            )
        }
    }

    /// The machine of that name.
    public func find(_ name: String) throws(StoreError) -> MachineDirectory {
        try Self.check(name: name)
        let path = machines + "/" + name
        guard access(path, F_OK) == 0 else {
            throw StoreError("there is no machine '\(name)'; 'davit list --all' shows those that are")
        }
        return try MachineDirectory(path: path, name: name)
    }

    /// All machines by name, but for those that go away while it looks.
    public func all() throws(StoreError) -> [MachineDirectory] {
        let names = try Self.entries(of: machines).filter { !$0.hasPrefix(Self.passing) }
        return names.sorted().compactMap { try? MachineDirectory(path: machines + "/" + $0, name: $0) }
    }

    /// Makes a machine; a name that is nil is made up. `prepare` is given the directory in which it comes to be.
    public func create(
        name: String?, _ configuration: StoredConfiguration, prepare: (String) throws -> Void = { _ in }
    ) throws -> MachineDirectory {
        if let name { try Self.check(name: name) }
        try Self.makeDirectories(machines)
        try sweep()
        let fresh = try passingDirectory("new")
        do {
            try SmallFile.write(fresh + "/" + MachineDirectory.configurationFile, configuration.json.description)
            try prepare(fresh)
        } catch {
            Self.removeTree(fresh)
            throw error
        }
        for attempt in 1... {
            let chosen = name ?? MadeUpName.random()
            // rename(2) takes the place of an empty directory only, and a machine's is not.
            if Glibc.rename(fresh, machines + "/" + chosen) == 0 {
                return try MachineDirectory(path: machines + "/" + chosen, name: chosen)
            }
            let code = errno
            if name == nil && (code == ENOTEMPTY || code == EEXIST) && attempt < 1000 { continue }
            Self.removeTree(fresh)
            guard code == ENOTEMPTY || code == EEXIST else {
                throw StoreError.host("make machine '\(chosen)'", code: code)
            }
            throw StoreError(
                "there is a machine '\(chosen)' already; choose another name, or 'davit remove \(chosen)' first")
        }
        preconditionFailure("the loop ends by return or throw")
    }

    /// Removes a machine whose lock the caller holds.
    func remove(_ machine: MachineDirectory) throws(StoreError) {
        let gone = try passingDirectory("gone")
        guard Glibc.rename(machine.path, gone) == 0 else { throw .host("remove machine '\(machine.name)'") }
        Self.removeTree(gone)
    }

    /// Removes what broken-off commands and machines that were to be removed at their end have left.
    public func sweep() throws(StoreError) {
        for entry in try Self.entries(of: machines) where Self.isLeft(entry) { Self.removeTree(machines + "/" + entry) }
        for machine in try all() where machine.configuration.isRemovedAtEnd && machine.status == .died {
            if let lock = try? machine.lock() { try remove(machine, holding: lock) }
        }
    }

    /// Removes a machine that does not run.
    public func remove(_ machine: MachineDirectory, holding lock: MachineLock) throws(StoreError) {
        // The lock's file goes with the directory: whoever opened it before, and gets the lock now, sees that it has no name any more.
        try remove(machine)
        _ = lock
    }

    /// Gives a machine that does not run another name.
    public func rename(_ machine: MachineDirectory, to name: String, holding lock: MachineLock) throws(StoreError) {
        try Self.check(name: name)
        // Takes the place of an empty directory only, and a machine's is not.
        guard Glibc.rename(machine.path, machines + "/" + name) == 0 else {
            guard errno == ENOTEMPTY || errno == EEXIST else { throw .host("rename machine '\(machine.name)'") }
            throw StoreError(
                "there is a machine '\(name)' already; choose another name, or 'davit remove \(name)' first")
        }
        _ = lock
    }

    /// Has a machine that does not run be made otherwise from its next start on.
    public func reconfigure(
        _ machine: MachineDirectory, _ configuration: StoredConfiguration, holding lock: MachineLock
    ) throws(StoreError) {
        try SmallFile.write(machine.path + "/" + MachineDirectory.configurationFile, configuration.json.description)
        _ = lock
    }

    static func makeDirectories(_ path: String) throws(StoreError) {
        var place = ""
        for part in path.split(separator: "/") {
            place += "/" + part
            guard mkdir(place, 0o700) == 0 || errno == EEXIST || access(place, X_OK) == 0 else {
                throw .host("make directory '\(place)', where machines are kept; set DAVIT_HOME to another:")
            }
        }
    }

    /// Whether the entry `.new-PID-...` or `.gone-PID-...` has been left by a process that is no more.
    static func isLeft(_ entry: String) -> Bool {
        let parts = entry.split(separator: "-")
        guard entry.hasPrefix(passing), parts.count == 3, let maker = pid_t(parts[1]) else { return false }
        return kill(maker, 0) != 0 && errno == ESRCH
    }

    private func passingDirectory(_ kind: String) throws(StoreError) -> String {
        let path = "\(machines)/\(Self.passing)\(kind)-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        guard mkdir(path, 0o700) == 0 else { throw .host("make a directory in '\(machines)'") }
        return path
    }

    static func entries(of path: String) throws(StoreError) -> [String] {
        guard let directory = opendir(path) else {
            if errno == ENOENT { return [] }
            throw .host("read '\(path)'")
        }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            // Safe: readdir(3) ends the name with a zero byte within the entry.
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    /// A directory of the store's is flat.
    static func removeTree(_ path: String) {
        guard let directory = opendir(path) else { return }
        while let entry = readdir(directory) {
            // Safe: as in `entries`.
            _ = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { unlinkat(dirfd(directory), $0, 0) }
            }
        }
        closedir(directory)
        rmdir(path)
    }
}
