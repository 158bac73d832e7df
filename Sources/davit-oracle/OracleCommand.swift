import ArgumentParser
@preconcurrency import Glibc
import InstructionOracle

@main
struct OracleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "davit-oracle",
        abstract: "Compare the interpreter with this machine's CPU, one random instruction after the other.")

    @Option(help: "Start of the random sequence; the same seed gives the same cases.")
    var seed: UInt64 = UInt64.random(in: 0..<1 << 32)
    @Option(help: "Cases to run; 0 for no limit.")
    var cases: UInt64 = 0
    @Option(help: "Seconds to run; 0 for no limit.")
    var seconds: Double = 0
    @Option(help: "Only this group or mnemonic; may be given several times.")
    var only: [String] = []
    @Option(help: "Stop after mismatches of so many mnemonics.")
    var reports: Int = 20

    func run() throws {
        setvbuf(stdout, nil, _IOLBF, 0)
        print("seed \(seed)")
        let plan = Oracle.Plan(
            seed: seed, cases: cases == 0 && seconds == 0 ? 300_000 : cases, seconds: seconds,
            only: only.map { $0.lowercased() }, reports: reports)
        let outcome: Oracle.Outcome
        do throws(Oracle.Failure) {
            outcome = try Oracle(plan, report: { print($0) }).run()
        } catch {
            throw ValidationError(error.description)
        }
        for (name, count) in outcome.mismatchesByName.sorted(by: { $0.key < $1.key }) { print("\(name): \(count)") }
        print("\(outcome.cases) cases, \(outcome.mismatches) mismatches")
        if outcome.mismatches > 0 { throw ExitCode(1) }
    }
}
