import ArgumentParser
@preconcurrency import Glibc
import InstructionOracle

struct TranslatorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "translator",
        abstract: "Compare the translator with the interpreter, one random program after the other.")

    @Option(help: "Start of the random sequence; the same seed gives the same cases.")
    var seed: UInt64 = UInt64.random(in: 0..<1 << 32)
    @Option(help: "Cases to run; 0 for no limit.")
    var cases: UInt64 = 0
    @Option(help: "Seconds to run; 0 for no limit.")
    var seconds: Double = 0
    @Option(help: "The first case's number.")
    var first: UInt64 = 0
    @Option(help: "This 64-bit code, in hexadecimal, in the place of random programs.")
    var code: String = ""
    @Option(help: "Stop after so many mismatches.")
    var reports: Int = 5

    func run() throws {
        setvbuf(stdout, nil, _IOLBF, 0)
        print("seed \(seed)")
        var plan = TranslatorOracle.Plan(
            seed: seed, cases: cases == 0 && seconds == 0 ? 100_000 : cases, seconds: seconds, reports: reports)
        plan.first = first
        plan.code = try HexadecimalBytes.parse(code, most: 128)
        let outcome: TranslatorOracle.Outcome
        do throws(TranslatorOracle.Failure) {
            outcome = try TranslatorOracle(plan, report: { print($0) }).run()
        } catch {
            throw ValidationError(error.description)
        }
        print(
            "\(outcome.cases) programs, \(outcome.instructions) instructions, \(outcome.boundaries) boundaries compared, "
                + "\(outcome.interrupts) interrupts, \(outcome.exceptions) exceptions, \(outcome.undecided) undecided, "
                + "\(outcome.mismatches) mismatches")
        if outcome.mismatches > 0 { throw ExitCode(1) }
    }
}
