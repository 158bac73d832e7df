import Glibc

/// What the guest is told: an error number of Linux's.
struct FileError: Error {
    let code: Int32

    init(_ code: Int32) { self.code = code }

    /// The last system call's.
    static var last: FileError { FileError(errno) }

    /// A result of -1 becomes an error.
    @discardableResult
    static func check<Result: BinaryInteger>(_ result: Result) throws(FileError) -> Result {
        guard result >= 0 else { throw .last }
        return result
    }
}
