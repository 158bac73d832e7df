/// Why a machine could not be made or could not go on: one sentence that says what was wrong, with which file or flag, and the mend.
public struct MachineError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What kind of mistake; the program has an exit status for each.
    public enum Kind: Equatable, Sendable, CaseIterable {
        /// A setting that cannot be: out of range, unknown, clashing.
        case configuration
        /// A file that cannot be read: missing, empty, a directory, no permission.
        case file
        /// A file that was read and is not what it should be, or does not fit.
        case image
        /// Something this host does not have, such as an engine's hardware.
        case unavailable
        /// The host refused a system call.
        case host
    }

    public let kind: Kind
    /// Names the setting as the program's flags do, for instance `--memory`.
    public let description: String

    public init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
