import Glibc

/// A failed system call: which one, and why.
public struct SystemError: Error, CustomStringConvertible, Equatable, Sendable {
    /// The call's name as its manual page has it, for instance `mmap`.
    public let call: String
    /// The value of `errno`.
    public let code: Int32

    public init(_ call: String, code: Int32 = errno) {
        self.call = call
        self.code = code
    }

    public var description: String { "\(call): \(String(cString: strerror(code)))" }
}
