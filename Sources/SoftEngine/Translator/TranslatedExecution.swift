import CDavit
import GuestMemory
import HostLinux
import X86
import X86Assembler

/// Runs one vCPU through translated code: finds or makes the unit at RIP, enters it, and sees to why it was left.
///
/// Only the vCPU's own thread calls it.
final class TranslatedExecution {
    let interpreter: Interpreter
    let cpu: UnsafeMutablePointer<davit_cpu>
    let decoder: Decoder
    private let pool: CodePool
    private let stubs: Stubs
    private let isShared: Bool
    /// From the writable view of code memory to the executable one, in bytes.
    private let delta: Int
    /// What is plain data but not constant; owned by this object.
    private let state: UnsafeMutablePointer<State>

    private struct State {
        var index: TranslationIndex
        var statistics = TranslationStatistics()
        /// Where the next unit's code goes.
        var free: UnsafeMutablePointer<UInt8>
        let firstFree: UnsafeMutablePointer<UInt8>
        /// Where to go on if the interpreter carries out the instruction that was left and comes to the one behind it.
        var resumption = Resumption()
        /// Of `CodeInvalidations`, how many are dealt with.
        var seenInvalidations: UInt64 = 0
        let end: UnsafeMutablePointer<UInt8>
    }

    private struct Resumption {
        /// -1: nowhere.
        var unit: Int32 = -1
        var rip: UInt64 = 0
        var host: UnsafeMutablePointer<UInt8>?
    }

    /// What is to be done when translated code was left.
    enum Outcome {
        /// Look at requests, then go on at RIP.
        case goOn
        /// The instruction at RIP is for the interpreter.
        case interpret
    }

    /// The host has what emitted code is made of: BMI2 for checks that leave flags alone, AVX for the vector registers.
    static var isSupported: Bool {
        InstructionFeatures.host.contains(.bmi2) && InstructionFeatures.host.contains(.avx2)
    }

    /// Bytes of code memory for each vCPU.
    static let poolSize = 64 << 20

    /// `isShared`: there is more than one vCPU.
    init(interpreter: Interpreter, isShared: Bool) throws(SystemError) {
        self.interpreter = interpreter
        self.cpu = interpreter.cpu
        self.decoder = interpreter.decoder
        self.isShared = isShared
        pool = try CodePool(segmentSize: Self.poolSize, segmentCount: 1)
        let writable = pool.writableBase
        delta = pool.executionDelta
        var code = CodeEmitter(cursor: writable)
        stubs = Stubs(&code)
        state = .allocate(capacity: 1)
        state.initialize(
            to: State(
                index: try TranslationIndex(pageCount: Int(interpreter.memory.span / GuestMemory.pageSize)),
                free: code.cursor,
                firstFree: code.cursor, end: writable + Self.poolSize))
        prepare()
    }

    deinit {
        davit_release_faults(UInt(bitPattern: pool.writableBase + delta))
        state.pointee.index.deallocate()
        state.deallocate()
    }

    /// To be called before `run`, when all other signal handlers of the process stand: false if there is no room for another
    /// range of code. The calling thread must have a signal stack, since emitted code has none: RSP is the state pointer there.
    func catchFaults() -> Bool {
        let start = UInt(bitPattern: pool.writableBase + delta)
        return davit_catch_faults(start, start + UInt(Self.poolSize), UInt(bitPattern: stubs.fault + delta)) == 0
    }

    /// Only 64-bit code without alignment checks is translated.
    var acceptsMode: Bool {
        cpu.pointee.code_size == 8 && cpu.pointee.cpl % 3 == 0 && cpu.pointee.tlb_current != interpreter.emptyTLB
    }

    private func prepare() {
        cpu.pointee.tlb_index_mask = UInt64(DAVIT_TLB_ENTRIES - 1) << 12
        cpu.pointee.page_mask = ~0xFFF
        cpu.pointee.jump_index_mask = JumpCache.indexMask
        cpu.pointee.arithmetic_mask = 0x8D5
        cpu.pointee.interrupts_off_mask = ~0x200
        cpu.pointee.host_mxcsr = 0x1F80
        cpu.pointee.x87_in_image = 1
        JumpCache.clear(cpu)
    }

    var statistics: TranslationStatistics { state.pointee.statistics }

    /// Runs translated code from RIP on, until the interpreter or the run loop has to do something.
    func run() -> Outcome {
        let outcome = runUnits()
        // The check that follows an instruction behind STI is passed over if the interpreter carries that instruction out.
        if cpu.pointee.interrupt_waits != 0 && cpu.pointee.rflags & RFLAGS.IF != 0 {
            davit_cpu_request(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
        }
        return outcome
    }

    private func runUnits() -> Outcome {
        forgetOverwritten()
        let mode = TranslationMode(cpu)
        if let place = takeResumption(mode) {
            enter(place)
        } else {
            guard let entry = entry(at: cpu.pointee.rip, mode) else { return .interpret }
            JumpCache.insert(cpu, rip: cpu.pointee.rip, mode: mode, target: entry, delta: delta)
            enter(entry)
        }
        while true {
            state.pointee.statistics.exits[Int(cpu.pointee.exit_reason)] &+= 1
            let site = UnsafeMutablePointer<UInt8>(bitPattern: UInt(cpu.pointee.exit_pc)).unsafelyUnwrapped - delta
            switch davit_leave(cpu.pointee.exit_reason) {
            case DAVIT_LEAVE_LOOKUP: return .goOn
            case DAVIT_LEAVE_LINK:
                // STAC and CLAC change the mode on the way.
                guard let entry = link(from: site, TranslationMode(cpu)) else { return .interpret }
                enter(entry)
            case DAVIT_LEAVE_INTERPRET:
                let numbers = UnsafeRawPointer(site)
                move(
                    unit: numbers.loadUnaligned(as: Int32.self),
                    boundary: numbers.loadUnaligned(fromByteOffset: 4, as: Int32.self))
                return .interpret
            case DAVIT_LEAVE_INDIRECT:
                guard learnTarget() else {
                    moveToBoundary(site - 1)
                    return .interpret
                }
                enter(site)
            case DAVIT_LEAVE_FAULT:
                moveToBoundary(site)
                return .interpret
            default:
                let kind: AccessKind = davit_leave(cpu.pointee.exit_reason) == DAVIT_LEAVE_READ_MISS ? .read : .write
                guard
                    interpreter.fillTLB(
                        for: kind, linear: cpu.pointee.exit_value, size: UInt64(cpu.pointee.exit_detail))
                else {
                    // A JMP back to the start of the check stands at the site.
                    let distance = UnsafeRawPointer(site + 1).loadUnaligned(as: Int32.self)
                    moveToBoundary(site + 5 + Int(distance))
                    return .interpret
                }
                enter(site)
            }
        }
    }

    /// Puts the address that an indirect branch goes to into the jump cache.
    private func learnTarget() -> Bool {
        let mode = TranslationMode(cpu)
        let target = cpu.pointee.exit_value
        // Not if that could sweep away the unit that is to go on.
        guard hasRoom, let entry = entry(at: target, mode) else { return false }
        JumpCache.insert(cpu, rip: target, mode: mode, target: entry, delta: delta)
        return true
    }

    private func enter(_ place: UnsafeMutablePointer<UInt8>) {
        cpu.pointee.code = UInt64(UInt(bitPattern: place + delta))
        typealias Enter = @convention(c) (UnsafeMutablePointer<davit_cpu>) -> Void
        // Safe: the stub keeps to the C calling convention.
        unsafeBitCast(stubs.enter + delta, to: Enter.self)(cpu)
    }

    /// RIP of the instruction that the host code at `site` belongs to.
    private func moveToBoundary(_ site: UnsafeMutablePointer<UInt8>) {
        guard let unit = state.pointee.index.unit(containing: site) else {
            preconditionFailure("translated code was left from outside of all units")
        }
        move(unit: unit, boundary: state.pointee.index.boundary(of: unit, containing: site))
    }

    /// RIP to an instruction of a unit, by their numbers.
    private func move(unit: Int32, boundary: Int32) {
        let place = state.pointee.index.units.base + Int(unit)
        let boundaries = state.pointee.index.boundaries.base + Int(boundary)
        cpu.pointee.rip = place.pointee.rip &+ UInt64(boundaries[0].guest)
        if boundary + 1 < place.pointee.firstBoundary + place.pointee.boundaryCount {
            state.pointee.resumption = Resumption(
                unit: unit, rip: place.pointee.rip &+ UInt64(boundaries[1].guest),
                host: place.pointee.start + Int(boundaries[1].host))
        }
    }

    /// Where the unit that was left goes on, if that is at RIP and nothing came between: what could change the mapping of its code
    /// ends a unit.
    private func takeResumption(_ mode: TranslationMode) -> UnsafeMutablePointer<UInt8>? {
        let resumption = state.pointee.resumption
        state.pointee.resumption.unit = -1
        guard resumption.unit >= 0, resumption.rip == cpu.pointee.rip else { return nil }
        let unit = state.pointee.index.units.base + Int(resumption.unit)
        return unit.pointee.isLive && unit.pointee.mode == mode.number ? resumption.host : nil
    }

    // MARK: - Finding and making units

    /// Where to enter the code for an address, translated if need be; nil if the interpreter must fetch there.
    private func entry(at rip: UInt64, _ mode: TranslationMode) -> UnsafeMutablePointer<UInt8>? {
        guard let unit = unit(at: rip, mode) else { return nil }
        return state.pointee.index.units.base[Int(unit)].start
    }

    private func unit(at rip: UInt64, _ mode: TranslationMode) -> Int32? {
        guard let physical = interpreter.physicalFetchAddress(rip) else { return nil }
        if let unit = state.pointee.index.find(physical: physical, rip: rip, mode: mode.number) { return unit }
        return translate(rip, physical: physical, mode)
    }

    /// Room for one more unit.
    private var hasRoom: Bool {
        state.pointee.end - state.pointee.free >= Translator.largestUnit
            && state.pointee.index.hasRoom(instructions: Translator.longestUnit)
    }

    private func translate(_ rip: UInt64, physical: UInt64, _ mode: TranslationMode) -> Int32? {
        if !hasRoom { forgetAll() }
        guard let bytes = interpreter.hostAddress(physical: physical) else { return nil }
        let available = 4096 - Int(physical & 0xFFF)
        var translator = Translator(
            interpreter: interpreter, decoder: decoder, stubs: stubs, mode: mode, isShared: isShared,
            unit: Int32(state.pointee.index.units.count), firstBoundary: Int32(state.pointee.index.boundaries.count),
            physical: physical, rip: rip, at: state.pointee.free)
        // Safe: the page is RAM to its end.
        let byteCount = translator.translate(
            UnsafePointer(bytes.assumingMemoryBound(to: UInt8.self)), available: available)
        guard byteCount > 0 else { return nil }
        state.pointee.free = translator.code.cursor
        let unit = TranslatedUnit(
            physical: physical, rip: rip, mode: mode.number, byteCount: UInt32(truncatingIfNeeded: byteCount),
            start: translator.start, end: translator.code.cursor,
            firstBoundary: Int32(state.pointee.index.boundaries.count),
            boundaryCount: Int32(translator.boundaries.count), nextInBucket: -1, nextInPage: -1, firstIncoming: -1,
            isLive: true)
        for boundary in translator.boundaries { state.pointee.index.add(boundary) }
        for link in translator.links {
            let number = state.pointee.index.add(TranslationLink(place: link.place, stub: link.stub, nextIncoming: -1))
            UnsafeMutableRawPointer(link.number).storeBytes(of: number, as: Int32.self)
        }
        state.pointee.statistics.units &+= 1
        state.pointee.statistics.guestBytes &+= UInt64(byteCount)
        state.pointee.statistics.hostBytes &+= UInt64(translator.code.cursor - translator.start)
        return state.pointee.index.insert(unit)
    }

    /// Links the jump that was left to its target. The number of the link follows the call.
    private func link(from site: UnsafeMutablePointer<UInt8>, _ mode: TranslationMode) -> UnsafeMutablePointer<UInt8>? {
        let number = UnsafeRawPointer(site).loadUnaligned(as: Int32.self)
        let flushes = state.pointee.statistics.flushes
        guard let unit = unit(at: cpu.pointee.rip, mode) else { return nil }
        // Making room for the target may have swept the link away.
        if flushes == state.pointee.statistics.flushes { state.pointee.index.connect(link: number, to: unit) }
        return state.pointee.index.units.base[Int(unit)].start
    }

    // MARK: - Forgetting

    /// Forgets the units whose code was overwritten since the last call. To be called before translated code is entered or found.
    private func forgetOverwritten() {
        let invalidations = interpreter.code.invalidations
        guard invalidations.count != state.pointee.seenInvalidations else { return }
        state.pointee.statistics.invalidations &+= 1
        let seen = invalidations.forEach(after: state.pointee.seenInvalidations) { entry in
            state.pointee.index.invalidate(page: entry.page, chunks: entry.chunks) { unit in
                JumpCache.remove(cpu, rip: unit.rip, mode: unit.mode)
            }
        }
        if let seen {
            state.pointee.seenInvalidations = seen
        } else {
            state.pointee.seenInvalidations = invalidations.count
            forgetAll()
        }
    }

    private func forgetAll() {
        state.pointee.index.removeAll()
        state.pointee.resumption.unit = -1
        state.pointee.free = state.pointee.firstFree
        state.pointee.statistics.flushes &+= 1
        JumpCache.clear(cpu)
    }
}

/// Counters of one vCPU's translator.
struct TranslationStatistics: BitwiseCopyable {
    var units: UInt64 = 0
    var guestBytes: UInt64 = 0
    var hostBytes: UInt64 = 0
    /// Times that units were forgotten because their code was overwritten, and times that all were, for want of room.
    var invalidations: UInt64 = 0
    var flushes: UInt64 = 0
    /// By `davit_leave`.
    var exits: InlineArray<7, UInt64> = InlineArray(repeating: 0)
}
