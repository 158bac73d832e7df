/// Why a kernel cannot be booted: one line that names the flag and the file, and says what to do.
public struct BootError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kind of failure, for exit statuses and tests.
    public enum Reason: Equatable, Sendable {
        /// The file is missing, empty, not a regular file, or reading it failed.
        case unreadable
        /// The file holds something else than a kernel for a PC.
        case notAKernel
        /// A kernel that needs what Davit does not offer, or an old boot protocol.
        case unsupported
        /// The file ends before the parts that its headers promise.
        case truncated
        /// Headers that contradict themselves.
        case malformed
        /// It does not fit into the machine's RAM, or not where it must stand.
        case doesNotFit
        /// The kernel takes a shorter command line.
        case commandLineTooLong
    }

    public let reason: Reason
    /// The flag that gave the file or the value, such as `--kernel`.
    public let flag: String
    /// The file's name as the user gave it; empty if the flag takes no file.
    public let file: String
    /// What is wrong.
    public let problem: String
    /// What the user can do about it.
    public let mend: String

    public var description: String {
        (file.isEmpty ? flag : "\(flag) \(file)") + ": \(problem): \(mend)"
    }
}

/// Whom an error speaks of: a flag and, mostly, the file it names.
struct BootSource: Equatable, Sendable {
    let flag: String
    let file: String

    func error(_ reason: BootError.Reason, _ problem: String, mend: String) -> BootError {
        BootError(reason: reason, flag: flag, file: file, problem: problem, mend: mend)
    }

    /// Headers that contradict themselves: only another file helps.
    func malformed(_ problem: String) -> BootError {
        error(
            .malformed, problem,
            mend: "the file is damaged, or was not made by a working linker; fetch or build it again")
    }

    func truncated(_ problem: String) -> BootError {
        error(.truncated, problem, mend: "the file was cut short; fetch or build it again")
    }
}
