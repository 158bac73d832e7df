import Glibc

/// Files that are written and read as a whole.
enum SmallFile {
    private static let limit = 1 << 20

    /// Its text; nil if there is no such file, or it is larger than 1 MiB.
    static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        var text: [UInt8] = []
        while true {
            let count = Glibc.read(descriptor, &bytes, bytes.count)
            guard count > 0, text.count <= limit else {
                return count == 0 ? String(decoding: text, as: UTF8.self) : nil
            }
            text += bytes[..<count]
        }
    }

    /// Puts `text` in the place of what was there, so that a reader sees the one or the other.
    static func write(_ path: String, _ text: String) throws(StoreError) { try write(path, bytes: Array(text.utf8)) }

    static func write(_ path: String, bytes: [UInt8]) throws(StoreError) {
        let fresh = path + ".new"
        let descriptor = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw .host("write '\(path)'") }
        let count = Glibc.write(descriptor, bytes, bytes.count)
        let code = errno
        close(descriptor)
        guard count == bytes.count else {
            unlink(fresh)
            throw .host("write '\(path)'", code: count < 0 ? code : ENOSPC)
        }
        guard rename(fresh, path) == 0 else { throw .host("write '\(path)'") }
    }
}
