import InstructionOracle
import Testing

/// The interpreter against the host's CPU. `make test` runs many more cases, in a release build.
@Suite(.serialized) struct OracleTests {
    @Test func randomInstructionsDoWhatTheHostDoes() throws {
        let reports = Reports()
        let outcome = try Oracle(Oracle.Plan(seed: 2, cases: 6000), report: reports.add).run()
        #expect(outcome.cases == 6000)
        #expect(outcome.mismatches == 0, "\(reports.text)")
    }

    @Test(arguments: Regression.all)
    func whatOnceWentWrongIsRight(_ regression: Regression) throws {
        let reports = Reports()
        var plan = Oracle.Plan(seed: 1, cases: 512)
        plan.code = regression.code
        plan.mode = regression.mode
        let outcome = try Oracle(plan, report: reports.add).run()
        #expect(outcome.mismatches == 0, "\(reports.text)")
    }

    @Test func theSameSeedGivesTheSameCoverage() throws {
        func table() throws -> String {
            let outcome = try Oracle(Oracle.Plan(seed: 7, cases: 512), report: { _ in }).run()
            return CoverageTable(outcome, seed: 7).markdown
        }
        let first = try table()
        #expect(try table() == first)
        #expect(first.contains("| x87 arithmetic |"))
    }

    @Test func anUnknownGroupIsRefused() {
        #expect(throws: Oracle.Failure.self) {
            try Oracle(Oracle.Plan(seed: 1, cases: 1, only: ["abacus"]), report: { _ in })
        }
    }
}

/// Gathers what an oracle reports.
private final class Reports {
    private(set) var text = ""
    func add(_ line: String) { text += line + "\n" }
}
