import Glibc
import Testing

@testable import ACPITables

private let hasIASL = system("command -v iasl >/dev/null 2>&1") == 0

/// Intel's compiler reads the tables, and compiles its own disassembly of them: a second opinion on every byte.
@Suite(
    .enabled(
        if: hasIASL, "iasl is missing, so the ACPI tables are NOT checked against it: apt-get install acpica-tools"))
struct DisassemblyTests {
    @Test(arguments: [1, 4, 300]) func everyTableIsUnderstood(processors: Int) throws {
        let directory = try Scratch()
        var platform = ACPIPlatform(processorCount: processors, serialPorts: [0, 1, 2, 3])
        platform.devices = [
            .device("TEST", [.named("_HID", .eisaID("PNP0C02")), .named("BIG", .integer(1 << 40))])
        ]
        platform.tables = [
            WDAT.table(
                .init(
                    control: 0x640, running: 1, resets: 2, status: 0x641, preset: 0x642, count: 0x644, reload: 0x646,
                    tick: 100, counts: 1...0xFFFF))
        ]
        for (_, table) in try ACPITableSet(platform).tables {
            let name = table.signature.lowercased()
            try directory.write(table.bytes, to: "\(name).dat")
            let disassembly = try directory.run("iasl -d \(name).dat")
            #expect(disassembly.status == 0, "\(disassembly.output)")
            #expect(!disassembly.output.contains("Error"), "\(disassembly.output)")
            #expect(!disassembly.output.contains("Warning"), "\(disassembly.output)")
            // RSDT and XSDT have no source form that the compiler reads back.
            guard table.signature == "DSDT" else { continue }
            let compilation = try directory.run("iasl \(name).dsl")
            #expect(compilation.status == 0 && compilation.output.contains(" 0 Errors"), "\(compilation.output)")
        }
    }

    @Test func devicesAreTheOnesThatLinuxLooksFor() throws {
        let directory = try Scratch()
        let set = try ACPITableSet(ACPIPlatform(processorCount: 2))
        let dsdt = try #require(set.tables.first { $0.table.signature == "DSDT" })
        try directory.write(dsdt.table.bytes, to: "dsdt.dat")
        _ = try directory.run("iasl -d dsdt.dat")
        let source = try directory.run("cat dsdt.dsl").output
        for line in [
            "Device (C001)", "\"ACPI0007\"", "EisaId (\"PNP0501\")", "EisaId (\"PNP0B00\")", "EisaId (\"PNP0303\")",
            "EisaId (\"PNP0103\")", "\"QEMU0001\"", "Name (\\_S5, Package (0x04)",
            "0x03F8,             // Range Minimum",
            "IRQNoFlags ()", "Memory32Fixed (ReadWrite,",
        ] {
            #expect(source.contains(line), "\(line) in:\n\(source)")
        }
    }
}

/// A directory of its own, removed at the end.
private final class Scratch {
    let path: String

    init() throws {
        var template = Array("/tmp/davit-acpi-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Failure(call: "mkdtemp") }
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    }

    deinit { _ = system("rm -rf '\(path)'") }

    struct Failure: Error { let call: String }

    func write(_ bytes: [UInt8], to name: String) throws {
        guard let file = fopen("\(path)/\(name)", "w") else { throw Failure(call: "fopen") }
        defer { fclose(file) }
        guard fwrite(bytes, 1, bytes.count, file) == bytes.count else { throw Failure(call: "fwrite") }
    }

    /// Runs a shell command in the directory; its output has both streams.
    func run(_ command: String) throws -> (status: Int32, output: String) {
        guard let pipe = popen("cd '\(path)' && \(command) 2>&1", "r") else { throw Failure(call: "popen") }
        var output: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = fread(&buffer, 1, buffer.count, pipe)
            guard count > 0 else { break }
            output += buffer[..<count]
        }
        return (pclose(pipe), String(decoding: output, as: UTF8.self))
    }
}
