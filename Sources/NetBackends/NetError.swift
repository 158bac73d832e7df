/// Why a network cannot be had: what is wrong, and the mend.
public struct NetError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Reason: Equatable, Sendable {
        /// A program or device that this host does not have.
        case unavailable
        /// The host refuses.
        case refused
        /// What was asked for cannot be.
        case badRequest
    }

    public let reason: Reason
    public let description: String

    init(_ reason: Reason, _ description: String) {
        self.reason = reason
        self.description = description
    }
}
