import CDavit
import Glibc
import HostLinux
import SoftEngine
import Synchronization

/// Holds the translator against the interpreter: random programs, run by both in step.
///
/// The translator's side runs turns of the run loop. After each, the interpreter's side goes on an instruction at a time until it is in the same
/// state; if it never comes to be, the two differ. Between turns come what may come at any boundary, to both sides alike: interrupts,
/// flushes of the TLB, other pages under the same addresses, writes by devices; and to the translator's side alone, instructions by its
/// interpreter and requests that let it leave its code early.
public final class TranslatorOracle {
    public struct Plan: Sendable {
        public var seed: UInt64
        /// Where to stop; 0 for no limit of that kind.
        public var cases: UInt64
        public var seconds: Double
        /// The first case's number.
        public var first: UInt64 = 0
        /// 64-bit code to run instead of random pieces, in random states and with what may come between; empty for none.
        public var code: [UInt8] = []
        /// Mismatches to print before giving up.
        public var reports: Int

        public init(seed: UInt64, cases: UInt64 = 0, seconds: Double = 0, reports: Int = 5) {
            self.seed = seed
            self.cases = cases
            self.seconds = seconds
            self.reports = reports
        }
    }

    public struct Outcome: Sendable {
        public var cases: UInt64 = 0
        public var mismatches: UInt64 = 0
        /// Programs that went on too long after an interrupt or the like.
        public var undecided: UInt64 = 0
        /// Instructions that the interpreter's side carried out, boundaries at which the sides were compared, interrupts, exceptions.
        public var instructions: UInt64 = 0
        public var boundaries: UInt64 = 0
        public var interrupts: UInt64 = 0
        public var exceptions: UInt64 = 0
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    private let plan: Plan
    private let report: (String) -> Void
    private let interpreter: ProgramBench
    /// By whether it is one of several vCPUs.
    private let translators: [ProgramBench]
    private var generator: ProgramGenerator
    private let watchdog: Watchdog
    private var outcome = Outcome()

    /// The most instructions of a program.
    private static let longestRun = 6000

    public init(_ plan: Plan, report: @escaping (String) -> Void) throws(Failure) {
        self.plan = plan
        self.report = report
        do {
            interpreter = try ProgramBench(ramSize: ProgramLayout.ramSize, isTranslated: false)
            translators = [
                try ProgramBench(ramSize: ProgramLayout.ramSize, isTranslated: true),
                try ProgramBench(ramSize: ProgramLayout.ramSize, isTranslated: true, isShared: true),
            ]
            generator = ProgramGenerator(
                bench: try InstructionBench(mapping: InterpreterSide.mapping, ldt: InterpreterSide.descriptors))
            watchdog = try Watchdog(translators.map(\.cpu))
        } catch {
            throw Failure(description: "no memory for the two machines: \(error)")
        }
        // Faults in emitted code are taken on a stack of their own: there RSP is the state.
        _ = davit_signals_make_stack()
    }

    deinit { watchdog.stop() }

    /// Runs until the plan's end.
    public func run() -> Outcome {
        let start = Self.now()
        var number = plan.first
        while plan.cases == 0 || number < plan.first &+ plan.cases {
            if plan.seconds > 0 && Self.now() - start >= plan.seconds { break }
            runCase(number)
            number &+= 1
            if outcome.mismatches >= UInt64(plan.reports) { break }
        }
        return outcome
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    // MARK: - A case

    private func runCase(_ number: UInt64) {
        let seed = plan.seed &+ number &* 0x9E37_79B9_7F4A_7C15
        var program = RandomProgram()
        var attempt: UInt64 = 0
        repeat {
            program = generator.make(seed: seed, attempt: attempt, code: plan.code)
            attempt += 1
        } while !ends(program)
        outcome.cases += 1
        var events: [String] = []
        switch compare(program, seed: seed, count: true, note: nil) {
        case .same: return
        case .undecided: outcome.undecided += 1
        case .different(let first):
            outcome.mismatches += 1
            let smallest = minimised(program, seed: seed)
            nearest = Nearest()
            defer { nearest = Nearest() }
            guard case .different = compare(smallest, seed: seed, count: false, note: nil) else {
                report("mismatch in case \(number) of seed \(plan.seed), which did not come again: \(first)")
                return list(program, seed: seed)
            }
            // Once more, up to the interpreter's state that is most like the translator's.
            nearest.isFinal = true
            guard case .different(let reason) = compare(smallest, seed: seed, count: false, note: { events.append($0) })
            else { return report("mismatch in case \(number) of seed \(plan.seed), which did not come again") }
            report("mismatch in case \(number) of seed \(plan.seed): \(reason)")
            report("  again: davit-oracle translator --seed \(plan.seed) --first \(number) --cases 1")
            list(smallest, seed: seed)
            for event in events.suffix(12) { report("  \(event)") }
        }
    }

    /// The program by itself comes to an end, and does nothing whose result nobody can foretell.
    private func ends(_ program: RandomProgram) -> Bool {
        program.load(into: interpreter)
        for _ in 0..<Self.longestRun {
            guard let result = step() else { return false }
            if result != .goOn { return true }
        }
        return false
    }

    /// One instruction of the interpreter's; nil if nobody can foretell what it does, or if a repeated one ran over itself: a CPU may
    /// finish it, or begin what stands there now.
    private func step() -> ProgramBench.Outcome? {
        let next = interpreter.decodeNext()
        if let next, next.isIndeterminate { return nil }
        let rip = interpreter.cpu.pointee.rip
        let result = interpreter.step()
        if interpreter.cpu.pointee.rip == rip, let next, next.bytes != interpreter.decodeNext()?.bytes { return nil }
        return result
    }

    /// Which of them runs a case, and what the rest is decided by.
    private func translator(_ seed: UInt64) -> (random: RandomSource, bench: ProgramBench) {
        var random = RandomSource(seed: seed ^ 0x7E57)
        let bench = translators[random.chance(30) ? 1 : 0]
        return (random, bench)
    }

    /// The interpreter's state that is most like the one which the translator has and it never reaches.
    private struct Nearest {
        /// As a count of its steps.
        var step = -1
        var likeness = -1
        /// It is known: stop there.
        var isFinal = false
    }
    private var nearest = Nearest()

    private func noteLikeness(_ mine: ProgramBench, _ theirs: ProgramBench, step: Int) {
        guard !nearest.isFinal, mine.cpu.pointee.rip == theirs.cpu.pointee.rip else { return }
        var likeness = mine.cpu.pointee.rflags == theirs.cpu.pointee.rflags ? 1 : 0
        for i in 0..<16 where davit_cpu_gpr(mine.cpu)[i] == davit_cpu_gpr(theirs.cpu)[i] { likeness += 1 }
        if likeness > nearest.likeness { (nearest.step, nearest.likeness) = (step, likeness) }
    }

    private enum Verdict {
        case same
        case undecided
        case different(String)
    }

    private func compare(
        _ program: RandomProgram, seed: UInt64, count: Bool, note: ((String) -> Void)?
    ) -> Verdict {
        var (random, theirs) = translator(seed)
        let mine = interpreter
        program.load(into: mine)
        program.load(into: theirs)
        watchdog.start()
        defer { watchdog.rest() }
        var steps = 0
        var isInterruptDue = false
        while true {
            var result: ProgramBench.Outcome
            let kind = random.below(100)
            switch kind {
            case 0..<12:
                result = .goOn
                for i in 0...random.below(4) where result == .goOn {
                    if i > 0 && isInterruptDue && theirs.takesInterrupts { break }
                    result = theirs.step()
                }
            case 12..<30: result = theirs.turn(isAsked: true)
            default: result = theirs.turn()
            }
            if watchdog.hasBarked { return .undecided }
            note?(
                "\(kind < 12 ? "interpreted" : kind < 30 ? "asked" : "turn") to \(Comparison.hex(theirs.cpu.pointee.rip))"
            )

            // The other side follows.
            if !nearest.isFinal { nearest = Nearest() }
            var follows: ProgramBench.Outcome = mine.cpu.pointee.halted != 0 ? .halted : .goOn
            let first = steps
            while !(ProgramState.sameRegisters(mine, theirs) && follows == result && ProgramState.agree(mine, theirs)) {
                noteLikeness(mine, theirs, step: steps)
                guard follows == .goOn, steps < 3 * Self.longestRun, !(nearest.isFinal && steps == nearest.step) else {
                    return .different(
                        "the interpreter does not come to the translator's state (\(result)); it stands here after "
                            + "\(steps - first) instructions (\(follows))")
                }
                if isInterruptDue && mine.takesInterrupts && steps > first {
                    return .different(
                        "an interrupt that waited was not taken at \(Comparison.hex(mine.cpu.pointee.rip))")
                }
                guard let result = step() else { return .undecided }
                follows = result
                steps += 1
            }
            if count {
                outcome.boundaries += 1
                outcome.instructions += UInt64(steps - first)
            }
            if result == .shutDown { break }
            if steps > 2 * Self.longestRun { return .undecided }
            if result == .halted && (mine.cpu.pointee.rflags & 0x200 == 0 || !isInterruptDue) { break }
            if let event = disturb(mine, theirs, &random, isDue: &isInterruptDue) {
                note?(event)
                guard ProgramState.agree(mine, theirs) else { return .different("after: \(event)") }
                if mine.isShutDown { break }
                if count && event.hasPrefix("interrupt") { outcome.interrupts += 1 }
            }
        }
        if count { outcome.exceptions += mine.ram.load(fromByteOffset: Int(ProgramLayout.kernelData), as: UInt64.self) }
        return .same
    }

    /// Something that may happen between any two instructions; what it was.
    private func disturb(
        _ mine: ProgramBench, _ theirs: ProgramBench, _ random: inout RandomSource, isDue: inout Bool
    ) -> String? {
        if isDue || random.chance(12) {
            if mine.takesInterrupts {
                isDue = false
                theirs.interruptWaits = false
                interrupt(mine, theirs)
                return "interrupt"
            }
            isDue = true
            theirs.interruptWaits = true
            return nil
        }
        let page = ProgramLayout.data + random.below(UInt64(ProgramLayout.dataPages)) << 12
        switch random.below(100) {
        case 0..<8:
            for bench in [mine, theirs] { bench.flush(page: ProgramLayout.low + page) }
            return "flush of a page"
        case 8..<14:
            for bench in [mine, theirs] { bench.flushFirstLevel() }
            return "flush of the first level"
        case 14..<20:
            for bench in [mine, theirs] { bench.flushAll() }
            return "flush of everything"
        case 20..<24 where mine.takesInterrupts:
            // Another frame, or other rights, for a page of data.
            let kind = ProgramLayout.PageKind.allCases[Int(random.below(8))]
            let frame = random.chance(50) ? page : ProgramLayout.spare + page & 0xF000
            return map(mine, theirs, page, ProgramLayout.entry(frame, kind))
        case 24..<30 where mine.takesInterrupts:
            // Other code.
            let number = random.below(ProgramLayout.codeSize >> 12) << 12
            let frame = random.chance(50) ? ProgramLayout.code : ProgramLayout.codeCopy
            return map(mine, theirs, ProgramLayout.code + number, frame + number | 7)
        case 30..<33:
            let bytes = (0...random.below(8)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            for bench in [mine, theirs] { bench.write(bytes, at: page + UInt64(bytes[0]) << 3) }
            return "a device writes"
        default: return nil
        }
    }

    private func interrupt(_ mine: ProgramBench, _ theirs: ProgramBench) {
        for bench in [mine, theirs] { bench.interrupt(ProgramLayout.interruptVector) }
    }

    private func map(_ mine: ProgramBench, _ theirs: ProgramBench, _ page: UInt64, _ entry: UInt64) -> String {
        let place = ProgramLayout.setLowPage(page, entry)
        // As another CPU does it: with an interrupt, in which the TLB is flushed.
        for bench in [mine, theirs] {
            bench.write(place.bytes, at: place.address)
            bench.flushAll()
        }
        interrupt(mine, theirs)
        return "page \(Comparison.hex(ProgramLayout.low + page)) is now \(Comparison.hex(entry))"
    }

    // MARK: - Telling

    /// The program with as many pieces made NOPs as still shows the mismatch.
    private func minimised(_ program: RandomProgram, seed: UInt64) -> RandomProgram {
        var smallest = program
        var changed = true
        while changed {
            changed = false
            for i in smallest.pieces.indices.reversed() {
                let piece = smallest.pieces[i]
                guard piece.bytes.contains(where: { $0 != 0x90 }),
                    !(piece.bytes.first == 0xCD && piece.bytes.count == 2)
                else {
                    continue
                }
                var candidate = smallest
                candidate.pieces[i].bytes = Array(repeating: 0x90, count: piece.bytes.count)
                candidate.pieces[i].fixups = []
                candidate.pieces[i].victim = nil
                guard !refersTo(i, in: candidate), ends(candidate) else { continue }
                if case .different = compare(candidate, seed: seed, count: false, note: nil) {
                    smallest = candidate
                    changed = true
                }
            }
        }
        return smallest
    }

    /// Some piece stores into this one.
    private func refersTo(_ target: Int, in program: RandomProgram) -> Bool {
        program.pieces.contains { piece in
            piece.fixups.contains { fixup in
                if case .victim(target, _, _, _) = fixup.kind { true } else { false }
            }
        }
    }

    private func list(_ program: RandomProgram, seed: UInt64) {
        let setup = program.setup
        let shared = translator(seed).bench === translators[1]
        report(
            "  \(shared ? "one of several vCPUs, " : "")\(setup.is32Bit ? "32-bit" : "64-bit") code at CPL \(setup.isUser ? 3 : 0), flags \(Comparison.hex(program.flags))"
                + "\(setup.hasSMAP ? ", SMAP" : "")\(setup.hasPCID ? ", PCID" : "")\(setup.isTaskSwitched ? ", TS" : "")"
        )
        let places = program.places
        let code = program.assembled()
        for (i, piece) in program.pieces.enumerated() where piece.bytes.contains(where: { $0 != 0x90 }) {
            let offset = Int(places[i] - places[0])
            let bytes = code[offset..<offset + piece.bytes.count]
            report("  \(Comparison.hex(program.window &+ places[i])): \(ProgramState.hex(bytes))")
        }
        for line in ProgramState.differences(interpreter, translator(seed).bench) { report(line) }
    }
}

/// Lets translated code that runs for ever look up.
private final class Watchdog: Sendable {
    /// Milliseconds that a program may take.
    private static let patience = 300
    /// Milliseconds since the case began; negative while none runs, `.min` to end the thread.
    private let age = Atomic<Int>(-1)
    private let barked = Atomic<Bool>(false)
    private let thread = Mutex<HostThread?>(nil)

    init(_ cpus: [UnsafeMutablePointer<davit_cpu>]) throws(SystemError) {
        // Safe: of the states only `exit_request` is touched, atomically, and the thread ends before they go.
        nonisolated(unsafe) let states = cpus
        let thread = try HostThread(name: "watchdog") { [self] in
            while age.load(ordering: .relaxed) != .min {
                usleep(10_000)
                guard age.load(ordering: .relaxed) >= 0 else { continue }
                guard age.wrappingAdd(10, ordering: .relaxed).newValue > Self.patience else { continue }
                barked.store(true, ordering: .relaxed)
                for cpu in states { davit_cpu_request(cpu, DAVIT_EXIT_CALL.rawValue) }
            }
        }
        self.thread.withLock { $0 = thread }
    }

    var hasBarked: Bool { barked.load(ordering: .relaxed) }
    func start() {
        barked.store(false, ordering: .relaxed)
        age.store(0, ordering: .relaxed)
    }
    func rest() { age.store(-1, ordering: .relaxed) }
    func stop() {
        age.store(.min, ordering: .relaxed)
        thread.withLock { $0.take() }?.join()
    }
}
