import Foundation

/// Translates guest programs with the host's `as` and `ld`.
public enum GuestAssembler {
    public struct Failed: Error { public let source: String }

    /// Intel's syntax without prefixes, 16-bit code unless the source says otherwise, to stand at `origin`.
    public static func assemble(_ source: String, at origin: UInt64) throws -> [UInt8] {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let text = ".intel_syntax noprefix\n.code16\n.text\n" + source + "\n"
        let file = directory.appendingPathComponent("guest.s")
        try text.write(to: file, atomically: true, encoding: .utf8)
        func tool(_ arguments: [String]) throws {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = arguments
            process.currentDirectoryURL = directory
            try process.run()
            process.waitUntilExit()
            if process.terminationStatus != 0 { throw Failed(source: source) }
        }
        try tool(["as", "--64", "-o", "guest.o", "guest.s"])
        try tool([
            "ld", "-m", "elf_x86_64", "-Ttext=0x\(String(origin, radix: 16))", "--oformat=binary", "-e", "0", "-o",
            "guest.bin", "guest.o",
        ])
        return [UInt8](try Data(contentsOf: directory.appendingPathComponent("guest.bin")))
    }
}
