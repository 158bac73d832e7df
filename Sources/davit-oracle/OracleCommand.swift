import ArgumentParser
@preconcurrency import Glibc
import InstructionOracle

@main
struct OracleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "davit-oracle",
        abstract: "Compare what carries out guest instructions with what it must agree with.",
        subcommands: [InstructionsCommand.self, TranslatorCommand.self], defaultSubcommand: InstructionsCommand.self)
}

struct InstructionsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "instructions",
        abstract: "Compare the interpreter with this machine's CPU, one random instruction after the other.")

    @Option(help: "Start of the random sequence; the same seed gives the same cases.")
    var seed: UInt64 = UInt64.random(in: 0..<1 << 32)
    @Option(help: "Cases to run; 0 for no limit.")
    var cases: UInt64 = 0
    @Option(help: "Seconds to run; 0 for no limit.")
    var seconds: Double = 0
    @Option(help: "Only this group or mnemonic; may be given several times.")
    var only: [String] = []
    @Option(help: "Only this encoding, in hexadecimal, in many states.")
    var code: String = ""
    @Option(help: "The mode for --code: long64, flat32, segmented32 or segmented16.")
    var mode: String = "long64"
    @Option(help: "Write a table of instruction groups and cases to this file.")
    var coverage: String?
    @Option(help: "Stop after mismatches of so many mnemonics.")
    var reports: Int = 20

    func run() throws {
        setvbuf(stdout, nil, _IOLBF, 0)
        print("seed \(seed)")
        guard let mode = CodeMode(rawValue: mode) else { throw ValidationError("--mode: no such mode: \(mode)") }
        var plan = Oracle.Plan(
            seed: seed, cases: cases == 0 && seconds == 0 ? 300_000 : cases, seconds: seconds,
            only: only.map { $0.lowercased() }, reports: reports)
        plan.mode = mode
        plan.code = try HexadecimalBytes.parse(code, most: 15)
        let outcome: Oracle.Outcome
        do throws(Oracle.Failure) {
            outcome = try Oracle(plan, report: { print($0) }).run()
        } catch {
            throw ValidationError(error.description)
        }
        for (name, count) in outcome.mismatchesByName.sorted(by: { $0.key < $1.key }) { print("\(name): \(count)") }
        print("\(outcome.cases) cases, \(outcome.mismatches) mismatches")
        if let coverage {
            let table = CoverageTable(outcome, seed: seed).markdown
            guard let file = fopen(coverage, "w") else { throw ValidationError("--coverage: cannot write \(coverage)") }
            fputs(table, file)
            fclose(file)
        }
        if outcome.mismatches > 0 { throw ExitCode(1) }
    }
}

/// Code as the command line has it.
enum HexadecimalBytes {
    static func parse(_ text: String, most: Int) throws -> [UInt8] {
        let digits = text.filter { $0 != " " }
        guard digits.count % 2 == 0, digits.count <= 2 * most else {
            throw ValidationError("--code: not 1 to \(most) bytes: \(text)")
        }
        return try stride(from: 0, to: digits.count, by: 2).map { at in
            let start = digits.index(digits.startIndex, offsetBy: at)
            guard let byte = UInt8(digits[start..<digits.index(start, offsetBy: 2)], radix: 16) else {
                throw ValidationError("--code: not hexadecimal: \(text)")
            }
            return byte
        }
    }
}
