import COracle
import Glibc
import SoftEngine

/// Runs random instructions on the host's CPU and in the interpreter, and reports where they part.
public final class Oracle {
    /// What to run.
    public struct Plan: Sendable {
        public var seed: UInt64
        /// Where to stop; 0 for no limit of that kind.
        public var cases: UInt64
        public var seconds: Double
        /// Groups or mnemonics, in lower case; empty for all.
        public var only: [String]
        /// One encoding to run in many states, instead of random ones.
        public var code: [UInt8] = []
        public var mode = CodeMode.long64
        /// Mismatches to print before giving up; further ones with the same mnemonic are only counted.
        public var reports: Int

        public init(seed: UInt64, cases: UInt64 = 0, seconds: Double = 0, only: [String] = [], reports: Int = 20) {
            self.seed = seed
            self.cases = cases
            self.seconds = seconds
            self.only = only
            self.reports = reports
        }
    }

    public struct Outcome: Sendable {
        public var cases: UInt64 = 0
        public var mismatches: UInt64 = 0
        /// By group, in the order of the opcode table: rows, rows with at least one case, cases.
        public var coverage: [(group: String, forms: Int, tried: Int, cases: UInt64)] = []
        /// Mnemonics that cannot be compared.
        public var leftOut: [String] = []
        /// Mismatches by mnemonic.
        public var mismatchesByName: [String: UInt64] = [:]
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private let plan: Plan
    private let allRows: [InstructionCatalog.Row]
    /// Those to run: in 64-bit mode, and in the others.
    private let rows: [[InstructionCatalog.Row]]
    private let bench: InstructionBench
    private let interpreter: InterpreterSide
    private var host: HostProcessor
    private var random: RandomSource
    private var generator: CaseGenerator
    private let mine: UnsafeMutablePointer<oracle_result>
    private var rowOf = [Int](repeating: 0, count: HostProcessor.batchSize)
    private var casesByRow: [UInt64]
    /// By row: what must not reach the host's CPU is sorted out by what the decoder sees, whatever row it was made from.
    private var isComparable: [Bool]
    private var leeway: [InstructionCatalog.Leeway]
    private var outcome = Outcome()
    private let report: (String) -> Void

    /// `report` gets the lines that describe mismatches.
    public init(_ plan: Plan, report: @escaping (String) -> Void) throws(Failure) {
        self.plan = plan
        self.report = report
        do {
            bench = try InstructionBench(mapping: InterpreterSide.mapping, ldt: InterpreterSide.descriptors)
        } catch {
            throw Failure(description: "no memory for the interpreter's side: \(error)")
        }
        allRows = InstructionCatalog.rows(bench)
        let chosen = allRows.filter { row in
            row.fitness == .comparable
                && (plan.only.isEmpty || plan.only.contains(row.group.lowercased()) || plan.only.contains(row.name))
        }
        guard !chosen.isEmpty else {
            throw Failure(description: "--only: no such group or mnemonic: \(plan.only.joined(separator: ", "))")
        }
        let long = InstructionCatalog.Key.long
        rows = [true, false].map { isLong in
            chosen.filter { $0.mask & long == 0 || ($0.match & long != 0) == isLong }
        }
        guard let host = HostProcessor() else {
            throw Failure(description: "no child process to run instructions in: \(String(cString: strerror(errno)))")
        }
        self.host = host
        interpreter = InterpreterSide(bench: bench)
        random = RandomSource(seed: plan.seed)
        generator = CaseGenerator(random: RandomSource(seed: plan.seed ^ 0xA5A5), bench: bench)
        mine = .allocate(capacity: HostProcessor.batchSize)
        casesByRow = Array(repeating: 0, count: (allRows.last?.index ?? 0) + 1)
        isComparable = Array(repeating: false, count: casesByRow.count)
        leeway = Array(repeating: [], count: casesByRow.count)
        for row in allRows {
            isComparable[row.index] = row.fitness == .comparable
            leeway[row.index] = row.leeway
        }
    }

    deinit { mine.deallocate() }

    /// Runs until the plan's end.
    public func run() throws(Failure) -> Outcome {
        let start = Self.now()
        while true {
            var count = HostProcessor.batchSize
            if plan.cases > 0 { count = Int(min(UInt64(count), plan.cases - outcome.cases)) }
            if count == 0 { break }
            if plan.seconds > 0 && Self.now() - start >= plan.seconds { break }
            try runBatch(count)
            if outcome.mismatches > 0 && outcome.mismatchesByName.count >= plan.reports { break }
        }
        fillCoverage()
        return outcome
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    private func runBatch(_ count: Int) throws(Failure) {
        let pattern = host.pattern
        let cases = host.cases
        for at in stride(from: 0, to: Int(ORACLE_DATA_SIZE + ORACLE_CONSTANT_SIZE), by: 8) {
            UnsafeMutableRawPointer(pattern).storeBytes(
                of: OperandValues.lane(&random), toByteOffset: at, as: UInt64.self)
        }
        for i in 0..<count {
            try generate(cases + i, i)
        }
        host.post(count: count)
        interpreter.loadPattern(pattern)
        for i in 0..<count { interpreter.run(cases + i, pattern: pattern, into: mine + i) }
        do {
            try host.wait()
        } catch {
            let place = describe(cases + error.index, rowOf[error.index])
            throw Failure(description: "the host's side died (status \(error.status)) at: \(place)")
        }
        for i in 0..<count {
            casesByRow[rowOf[i]] += 1
            Comparison.clearStackRemains(cases + i, host.results + i, mine + i)
            if !Comparison.agree(cases + i, host.results + i, mine + i, leeway[rowOf[i]]) { mismatch(i) }
        }
        outcome.cases += UInt64(count)
    }

    private func generate(_ c: UnsafeMutablePointer<oracle_case>, _ i: Int) throws(Failure) {
        if !plan.code.isEmpty {
            guard let decoded = generator.generate(code: plan.code, mode: plan.mode, into: c) else {
                throw Failure(description: "not an instruction that can be compared")
            }
            rowOf[i] = decoded.row
            return
        }
        while true {
            let mode = generator.chooseMode()
            let rows = self.rows[mode == .long64 ? 0 : 1]
            guard !rows.isEmpty else { continue }
            let row = Int(random.below(UInt64(rows.count)))
            if let decoded = generator.generate(rows[row], into: c), decoded.row == 0 || isComparable[decoded.row] {
                rowOf[i] = decoded.row == 0 ? rows[row].index : decoded.row
                return
            }
        }
    }

    private func mismatch(_ i: Int) {
        outcome.mismatches += 1
        let name = allRows.first { $0.index == rowOf[i] }?.name ?? "?"
        outcome.mismatchesByName[name, default: 0] += 1
        guard outcome.mismatchesByName[name] == 1, outcome.mismatchesByName.count <= plan.reports else { return }
        report("mismatch: \(describe(host.cases + i, rowOf[i]))")
        for line in Comparison.describe(host.cases + i, host.results + i, mine + i, pattern: host.pattern) {
            report(line)
        }
    }

    private func describe(_ c: UnsafeMutablePointer<oracle_case>, _ index: Int) -> String {
        let row = allRows.first { $0.index == index }
        let bytes = (0..<Int(c.pointee.code_length)).map { i in
            let digits = String(oracle_case_code(c)[i], radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }
        let cs = oracle_case_registers(c).pointee.cs
        let bits = cs == 0x33 ? 64 : cs == CodeMode.selector(ORACLE_CODE16) ? 16 : 32
        return "\(bytes.joined(separator: " "))  \(row?.name ?? "?") (\(row?.group ?? "?"), \(bits)-bit)"
    }

    private func fillCoverage() {
        var places: [String: Int] = [:]
        var leftOut = Set<String>()
        for row in allRows {
            guard row.fitness == .comparable else {
                leftOut.insert(row.name)
                continue
            }
            let place = places[row.group] ?? outcome.coverage.count
            if place == outcome.coverage.count {
                places[row.group] = place
                outcome.coverage.append((row.group, 0, 0, 0))
            }
            let cases = casesByRow[row.index]
            outcome.coverage[place].forms += 1
            outcome.coverage[place].tried += cases > 0 ? 1 : 0
            outcome.coverage[place].cases += cases
        }
        outcome.leftOut = leftOut.sorted()
    }
}
