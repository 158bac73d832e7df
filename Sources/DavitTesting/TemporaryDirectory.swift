import Glibc

/// A directory of its own, removed at the end with all that is in it.
public final class TemporaryDirectory {
    public let path: String

    public init() throws {
        var template = Array("/tmp/davit-disks-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw ToolFailure(command: "mkdtemp", status: errno, output: "") }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { _ = try? Tool.run(["rm", "-rf", path]) }

    public subscript(name: String) -> String { path + "/" + name }

    /// Makes a file of those bytes and returns its path.
    public func file(_ name: String, _ bytes: [UInt8]) throws -> String {
        let descriptor = open(self[name], O_RDWR | O_CREAT | O_TRUNC, 0o644)
        defer { close(descriptor) }
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else {
            throw ToolFailure(command: "write \(name)", status: errno, output: "")
        }
        return self[name]
    }

    public func bytes(_ name: String) throws -> [UInt8] {
        let descriptor = open(self[name], O_RDONLY)
        defer { close(descriptor) }
        var status = stat()
        fstat(descriptor, &status)
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        guard descriptor >= 0, pread(descriptor, &bytes, bytes.count, 0) == bytes.count else {
            throw ToolFailure(command: "read \(name)", status: errno, output: "")
        }
        return bytes
    }
}

public struct ToolFailure: Error, CustomStringConvertible {
    public let command: String
    public let status: Int32
    public let output: String
    public var description: String { "\(command): status \(status)\n\(output)" }
}

/// A program of the host's.
public enum Tool {
    /// Runs it and returns its output; throws unless it ends with status 0.
    @discardableResult
    public static func run(_ words: [String]) throws -> String {
        let (status, output) = try start(words)
        guard status == 0 else {
            throw ToolFailure(command: words.joined(separator: " "), status: status, output: output)
        }
        return output
    }

    /// Runs it and returns its exit status and what it printed, errors among it.
    public static func start(_ words: [String]) throws -> (status: Int32, output: String) {
        var template = Array("/tmp/davit-output-XXXXXX".utf8CString)
        let output = mkstemp(&template)
        defer {
            unlink(template)
            close(output)
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        var arguments = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var process = pid_t()
        let failure = posix_spawnp(&process, words[0], &actions, nil, &arguments, environ)
        guard failure == 0 else { throw ToolFailure(command: words[0], status: failure, output: "") }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        var size = stat()
        fstat(output, &size)
        var bytes = [UInt8](repeating: 0, count: Int(size.st_size))
        _ = pread(output, &bytes, bytes.count, 0)
        return (status & 0x7F == 0 ? status >> 8 & 0xFF : -(status & 0x7F), String(decoding: bytes, as: UTF8.self))
    }
}
