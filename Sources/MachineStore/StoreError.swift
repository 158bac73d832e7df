import Glibc

/// What is wrong with a named machine or with where they are kept: one sentence that names it, and the mend.
public struct StoreError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }

    /// A system call that has just failed, which was to do `what`.
    static func host(_ what: String, code: Int32 = errno) -> StoreError {
        StoreError("cannot \(what) (\(String(cString: strerror(code))))")
    }
}
