import InstructionOracle
import Testing

/// The translator against the interpreter. `make test` runs many more programs, in a release build.
@Suite(.serialized) struct TranslatorOracleTests {
    @Test func randomProgramsRunAlike() throws {
        var report = ""
        let oracle = try TranslatorOracle(TranslatorOracle.Plan(seed: 3, cases: 400), report: { report += $0 + "\n" })
        let outcome = oracle.run()
        #expect(outcome.cases == 400)
        #expect(outcome.mismatches == 0, "\(report)")
        #expect(outcome.boundaries > 4000 && outcome.interrupts > 300 && outcome.exceptions > 500)
    }

    /// What once went wrong, in a hundred states each.
    @Test(
        arguments: [
            (
                "x87 state is loaded behind the TLB check",
                [0xD9, 0x04, 0x24, 0xD9, 0xE8, 0xDD, 0x5C, 0x24, 0x08, 0xD9, 0x7C, 0x24, 0x10]
            ),
            ("MOVDQ2Q from a high register", [0xF2, 0x49, 0x0F, 0xD6, 0xD1]),
            ("MOVD from a high register", [0x41, 0x0F, 0x6E, 0xC9]),
            ("CMPXCHG AH, BH", [0x0F, 0xB0, 0xFC, 0x0F, 0xB0, 0xDC, 0x0F, 0xB0, 0xC4]),
            ("SYSCALL and SYSRET with TF", [0x68, 0x03, 0x01, 0, 0, 0x9D, 0x0F, 0x05, 0x90]),
            ("STI, HLT and CLI in a row", [0xFB, 0xFA, 0xFB, 0x90, 0xFA, 0xFB, 0x90]),
        ] as [(String, [UInt8])])
    func whatOnceWentWrongIsRight(name: String, code: [UInt8]) throws {
        var report = ""
        var plan = TranslatorOracle.Plan(seed: 1, cases: 100)
        plan.code = code
        let outcome = try TranslatorOracle(plan, report: { report += $0 + "\n" }).run()
        #expect(outcome.mismatches == 0, "\(report)")
        #expect(outcome.cases == 100)
    }
}
