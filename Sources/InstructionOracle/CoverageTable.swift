/// What a run covered, as a page of documentation.
public struct CoverageTable {
    private let outcome: Oracle.Outcome
    private let seed: UInt64

    public init(_ outcome: Oracle.Outcome, seed: UInt64) {
        self.outcome = outcome
        self.seed = seed
    }

    public var markdown: String {
        var text = """
            # Instruction coverage

            Cases that `davit-oracle --seed \(seed) --cases \(outcome.cases)` runs both on the host's CPU and in the interpreter, by
            group of opcodes. Made by `make coverage`; the numbers depend on what the host's CPU has.

            | group | forms | tried | cases |
            |---|---:|---:|---:|

            """
        for line in outcome.coverage {
            text += "| \(line.group) | \(line.forms) | \(line.tried) | \(line.cases) |\n"
        }
        let forms = outcome.coverage.reduce(0) { $0 + $1.forms }
        let tried = outcome.coverage.reduce(0) { $0 + $1.tried }
        let cases = outcome.coverage.reduce(0) { $0 + $1.cases }
        text += "| **all** | \(forms) | \(tried) | \(cases) |\n"
        text += """

            Forms are rows of the opcode table that the guest's CPUID offers and that user mode can compare. Left out:
            \(outcome.leftOut.joined(separator: ", ")): their results differ each time, or they enter the operating system, or
            it plays the CPU's part. Tests with guest programs cover these.

            """
        return text
    }
}
