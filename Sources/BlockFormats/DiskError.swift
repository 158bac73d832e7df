/// Why a disk cannot be opened, made or changed: one line that names the file, and says what to do.
public struct DiskError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The kind of failure, for exit statuses and tests.
    public enum Reason: Equatable, Sendable {
        /// The file is missing or may not be used, or reading or writing it failed.
        case unreadable
        /// Somebody else uses it.
        case inUse
        /// Which format it has was not said, and cannot be told safely.
        case formatNotStated
        /// It does not have the format that was stated.
        case notThatFormat
        /// A feature of the format that Davit does not have.
        case unsupported
        /// It names another file, and the command did not say to follow.
        case backingNotAllowed
        /// It ends before the parts that its headers promise.
        case truncated
        /// It contradicts itself.
        case malformed
        /// What was asked for cannot be.
        case badRequest
    }

    public let reason: Reason
    /// The file's name as the user gave it.
    public let file: String
    /// What is wrong.
    public let problem: String
    /// What the user can do about it.
    public let mend: String

    public init(_ reason: Reason, file: String, _ problem: String, mend: String) {
        self.reason = reason
        self.file = file
        self.problem = problem
        self.mend = mend
    }

    public var description: String { "\(file): \(problem): \(mend)" }
}
