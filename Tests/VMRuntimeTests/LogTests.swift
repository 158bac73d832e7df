import Glibc
import Testing

@testable import VMRuntime

@Suite struct LogTests {
    /// What `body` writes to a log.
    private func lines(_ level: LogLevel, _ body: (Log) -> Void) throws -> [Substring] {
        var template = Array("/tmp/davit-log-XXXXXX".utf8CString)
        close(mkstemp(&template))
        let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { unlink(path) }
        body(try Log(level: level, path: path))
        let descriptor = open(path, O_RDONLY)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = max(read(descriptor, &bytes, bytes.count), 0)
        return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n")
    }

    @Test func linesUpToTheLevelAreWritten() throws {
        let written = try lines(.warning) { log in
            log.write(.error, "one")
            log.write(.warning, "two\nof two lines")
            log.write(.info, "three")
        }
        #expect(written == ["davit: one", "davit: two", "of two lines"])
    }

    @Test func guestThatFloodsTheLogIsHeldBack() throws {
        let written = try lines(.warning) { log in
            for number in 0..<100_000 { log.writeFromGuest("odd access \(number)") }
        }
        #expect(written.first == "davit: odd access 0")
        #expect(written.contains("davit: more such lines in this second are dropped"))
        // The loop may take a few seconds.
        #expect(written.count < 1000)
    }

    @Test func levelsHaveNames() {
        #expect(LogLevel(name: "debug") == .debug)
        #expect(LogLevel(name: "Debug") == nil)
        #expect(LogLevel(name: "/tmp/log") == nil)
    }
}
