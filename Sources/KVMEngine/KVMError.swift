import Glibc

/// Why there is no KVM, or why it refused: for `auto` to fall back on, for `kvm` to report.
public struct KVMError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What was wrong.
    public let cause: String
    /// What the user can do about it; empty if nothing is known to help.
    public let mend: String

    public init(_ cause: String, mend: String = "") {
        self.cause = cause
        self.mend = mend
    }

    /// A request that failed; `result` is -errno.
    init(_ request: String, _ result: Int32) {
        self.init(
            "this host's KVM refuses the machine (\(request): \(String(cString: strerror(-result))))",
            mend: "use --engine soft")
    }

    public var description: String { mend.isEmpty ? cause : cause + "; " + mend }
}
