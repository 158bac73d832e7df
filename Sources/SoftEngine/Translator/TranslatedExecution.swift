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
    private let system: UnsafeMutablePointer<SystemState>
    private let jumps: ReservedArray<davit_jump>
    let decoder: Decoder
    private let pool: CodePool
    private let stubs: Stubs
    private let isShared: Bool
    private let perfMap: PerfMap?
    /// From the writable view of code memory to the executable one, in bytes.
    private let delta: Int
    /// In bytes.
    private let segmentSize: Int
    /// What is plain data but not constant; owned by this object.
    private let state: UnsafeMutablePointer<State>
    /// How often translated code left an instruction to the interpreter, by `Operation.rawValue`; owned by this object.
    let interpreted: UnsafeMutablePointer<UInt64>

    private struct State {
        var index: TranslationIndex
        var statistics = TranslationStatistics()
        var rewrites = Rewrites()
        /// Where the next unit's code goes, and the end of its segment.
        var free: UnsafeMutablePointer<UInt8>
        var end: UnsafeMutablePointer<UInt8>
        /// Behind the stubs, which segment 0 begins with.
        let firstFree: UnsafeMutablePointer<UInt8>
        /// Where to go on if the interpreter carries out the instruction that was left and comes to the one behind it.
        var resumption = Resumption()
        /// Of `CodeInvalidations`, how many are dealt with.
        var seenInvalidations: UInt64 = 0
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
        /// The same, and its code is not to be cached: it is rewritten again and again.
        case interpretUncached
    }

    /// The host has what emitted code is made of: BMI2 for checks that leave flags alone, AVX for the vector registers.
    static var isSupported: Bool {
        InstructionFeatures.host.contains(.bmi2) && InstructionFeatures.host.contains(.avx2)
    }

    /// Bytes of code memory that a vCPU has by default.
    static let defaultCodeMemory = 10 << 20

    /// `isShared`: there is more than one vCPU. `codeMemory`: bytes for translated code. `perfMap`: where each unit's place is noted.
    init(
        interpreter: Interpreter, isShared: Bool, codeMemory: Int = TranslatedExecution.defaultCodeMemory,
        perfMap: PerfMap? = nil
    ) throws(SystemError) {
        self.interpreter = interpreter
        self.perfMap = perfMap
        self.cpu = interpreter.cpu
        system = interpreter.system
        jumps = try ReservedArray(capacity: Int(DAVIT_JUMPS))
        interpreter.cpu.pointee.jumps = jumps.base
        self.decoder = interpreter.decoder
        self.isShared = isShared
        segmentSize = (codeMemory / TranslationIndex.segmentCount + 4095) & ~4095
        pool = try CodePool(segmentSize: segmentSize, segmentCount: TranslationIndex.segmentCount)
        let writable = pool.writableBase
        delta = pool.executionDelta
        var code = CodeEmitter(cursor: writable)
        stubs = Stubs(&code)
        state = .allocate(capacity: 1)
        state.initialize(
            to: State(
                index: try TranslationIndex(pageCount: Int(interpreter.memory.span / GuestMemory.pageSize)),
                free: code.cursor, end: writable + segmentSize, firstFree: code.cursor))
        interpreted = .allocate(capacity: Operation.count)
        interpreted.initialize(repeating: 0, count: Operation.count)
        prepare()
        interpreter.code.invalidations.subscribe(interpreter.cpu)
    }

    deinit {
        interpreter.code.invalidations.unsubscribe(cpu)
        interpreted.deallocate()
        jumps.deallocate()
        davit_release_faults(UInt(bitPattern: pool.writableBase + delta))
        state.pointee.index.deallocate()
        state.deallocate()
    }

    /// To be called before `run`, when all other signal handlers of the process stand: false if there is no room for another
    /// range of code. The calling thread must have a signal stack, since emitted code has none: RSP is the state pointer there.
    func catchFaults() -> Bool {
        let start = UInt(bitPattern: pool.writableBase + delta)
        return davit_catch_faults(start, start + UInt(pool.addresses.count), UInt(bitPattern: stubs.fault + delta)) == 0
    }

    /// Code of this mode is translated, if neither alignment is checked nor data watched.
    var acceptsMode: Bool { TranslationMode.accepts(cpu) && cpu.pointee.tlb_current != interpreter.emptyTLB }

    private func prepare() {
        cpu.pointee.tlb_index_mask = UInt64(DAVIT_TLB_ENTRIES - 1) << 12
        cpu.pointee.page_mask = ~0xFFF
        cpu.pointee.jump_index_mask = JumpCache.indexMask
        cpu.pointee.arithmetic_mask = 0x8D5
        cpu.pointee.interrupts_off_mask = ~0x200
        cpu.pointee.high_half_mask = UInt64.max << 47
        cpu.pointee.stepping_mask = RFLAGS.TF | RFLAGS.AC
        cpu.pointee.host_mxcsr = 0x1F80
        cpu.pointee.x87_in_image = 1
        interpreter.updateFastCalls()
        JumpCache.clear(cpu)
    }

    var statistics: TranslationStatistics { state.pointee.statistics }

    /// Runs the guest until something ends it: translated code where the mode allows it, else the interpreter.
    func runGuest() -> Interpreter.RunExit {
        interpreter.enterGuest()
        defer { interpreter.gate?.leave() }
        while true {
            if let exit = turn() { return exit }
        }
    }

    /// Looks at requests, then runs translated code up to where it is left and what it leaves to the interpreter, or a block. Non-nil
    /// to leave the run loop.
    @inline(__always)
    func turn() -> Interpreter.RunExit? {
        guard acceptsMode else { return interpreter.turn() }
        if interpreter.needsAttention {
            switch interpreter.lookUp() {
            case .goOn: break
            case .again: return nil
            case .leave(let exit): return exit
            }
            // An interrupt may have led to another mode.
            guard acceptsMode else { return nil }
        }
        return carryOn() ? nil : .tripleFault
    }

    /// Runs translated code up to where it is left, and the instruction that it leaves to the interpreter. The mode allows it. False after
    /// a triple fault.
    @inline(__always)
    func carryOn() -> Bool {
        switch run() {
        case .goOn: true
        case .interpret: interpreter.runBlock(atMost: 1)
        case .interpretUncached: interpreter.step()
        }
    }

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
        if system.pointee.jumpTags.isStale || davit_cpu_jump_numbers(cpu)[Int(mode.tlb)] != UInt64(mode.number) {
            interpreter.updateJumpTags(mode)
            // The unit's page may be mapped elsewhere now.
            state.pointee.resumption.unit = -1
        }
        if let place = takeResumption(mode) {
            enter(place)
        } else if let place = JumpCache.find(cpu, rip: cpu.pointee.rip, mode: mode) {
            enter(place - delta)
        } else {
            guard let entry = entry(at: cpu.pointee.rip, mode) else { return withoutUnit(at: cpu.pointee.rip) }
            remember(cpu.pointee.rip, mode, entry)
            enter(entry)
        }
        while true {
            state.pointee.statistics.exits[Int(cpu.pointee.exit_reason)] &+= 1
            let site = UnsafeMutablePointer<UInt8>(bitPattern: UInt(cpu.pointee.exit_pc)).unsafelyUnwrapped - delta
            switch davit_leave(cpu.pointee.exit_reason) {
            case DAVIT_LEAVE_LOOKUP: return .goOn
            case DAVIT_LEAVE_LINK, DAVIT_LEAVE_LINK_PLAIN:
                // STAC and CLAC change the mode on the way.
                let isPlain = davit_leave(cpu.pointee.exit_reason) == DAVIT_LEAVE_LINK_PLAIN
                guard let entry = link(from: site, TranslationMode(cpu), isPlain: isPlain) else { return .interpret }
                enter(entry)
            case DAVIT_LEAVE_INTERPRET:
                let numbers = UnsafeRawPointer(site)
                move(
                    unit: numbers.loadUnaligned(as: Int32.self),
                    boundary: numbers.loadUnaligned(fromByteOffset: 4, as: Int32.self))
                interpreted[Int(numbers.loadUnaligned(fromByteOffset: 8, as: Int32.self))] &+= 1
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
                let detail = cpu.pointee.exit_detail
                if interpreter.fillTLB(
                    for: kind, linear: cpu.pointee.exit_value, size: UInt64(detail & ~DAVIT_WINDOW_MISS))
                {
                    enter(site)
                    continue
                }
                // A JMP back to the start of the check stands at the site.
                let distance = UnsafeRawPointer(site + 1).loadUnaligned(as: Int32.self)
                moveToBoundary(site + 5 + Int(distance))
                guard detail & DAVIT_WINDOW_MISS != 0,
                    let unit = unit(at: cpu.pointee.rip, TranslationMode(cpu), isPlain: true)
                else {
                    return .interpret
                }
                state.pointee.resumption.unit = -1
                enter(state.pointee.index.units.base[Int(unit)].start)
            }
        }
    }

    private func remember(_ rip: UInt64, _ mode: TranslationMode, _ entry: UnsafeMutablePointer<UInt8>) {
        interpreter.noteJumps(to: rip)
        JumpCache.insert(cpu, rip: rip, mode: mode, target: entry + delta)
    }

    /// Puts the address that an indirect branch goes to into the jump cache.
    private func learnTarget() -> Bool {
        let mode = TranslationMode(cpu)
        let target = cpu.pointee.exit_value
        // Not if that could sweep away the unit that is to go on.
        guard hasRoom, let entry = entry(at: target, mode) else { return false }
        remember(target, mode, entry)
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
        let segment = (site - pool.writableBase) / segmentSize
        guard let unit = state.pointee.index.unit(containing: site, segment: segment) else {
            preconditionFailure("translated code was left from outside of all units")
        }
        move(unit: unit, boundary: state.pointee.index.boundary(of: unit, containing: site))
    }

    /// RIP to an instruction of a unit, by their numbers.
    private func move(unit: Int32, boundary: Int32) {
        let place = state.pointee.index.units.base + Int(unit)
        let boundaries = state.pointee.index.boundaries.base + Int(boundary)
        cpu.pointee.rip = place.pointee.rip &+ UInt64(boundaries[0].guest)
        if boundary + 1 < place.pointee.firstBoundary + place.pointee.boundaryCount && !boundaries[1].isInside {
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
        return unit.pointee.isLive && unit.pointee.mode & ~TranslatedUnit.plain == mode.number ? resumption.host : nil
    }

    // MARK: - Finding and making units

    /// Where to enter the code for an address, translated if need be; nil if the interpreter must fetch there.
    private func entry(at rip: UInt64, _ mode: TranslationMode) -> UnsafeMutablePointer<UInt8>? {
        guard let unit = unit(at: rip, mode) else { return nil }
        return state.pointee.index.units.base[Int(unit)].start
    }

    private func unit(at rip: UInt64, _ mode: TranslationMode, isPlain: Bool = false) -> Int32? {
        guard let physical = interpreter.physicalFetchAddress(rip), !state.pointee.rewrites.areMany(at: physical) else {
            return nil
        }
        let number = mode.number | (isPlain ? TranslatedUnit.plain : 0)
        if let unit = state.pointee.index.find(physical: physical, rip: rip, mode: number) { return unit }
        return translate(rip, physical: physical, mode, isPlain: isPlain)
    }

    /// Code that was rewritten often counts as any other again.
    func forgetRewrites() { state.pointee.rewrites = Rewrites() }

    /// What to do about an address for which there is no unit.
    private func withoutUnit(at rip: UInt64) -> Outcome {
        guard let physical = interpreter.physicalFetchAddress(rip), state.pointee.rewrites.areMany(at: physical),
            let chunk = interpreter.hostAddress(physical: physical & ~63)
        else { return .interpret }
        return state.pointee.rewrites.settles(at: physical, chunk: chunk) ? .goOn : .interpretUncached
    }

    /// Room for one more unit.
    private var hasRoom: Bool {
        state.pointee.end - state.pointee.free >= Translator.largestUnit
            && state.pointee.index.hasRoom(instructions: Translator.longestUnit)
    }

    private func translate(_ rip: UInt64, physical: UInt64, _ mode: TranslationMode, isPlain: Bool) -> Int32? {
        if !hasRoom { makeRoom() }
        guard let bytes = interpreter.hostAddress(physical: physical) else { return nil }
        let began = davit_rdtsc()
        let available = 4096 - Int(physical & 0xFFF)
        var translator = Translator(
            interpreter: interpreter, decoder: decoder, stubs: stubs, mode: mode, isShared: isShared,
            unit: state.pointee.index.nextUnit, firstBoundary: state.pointee.index.nextBoundary,
            physical: physical, rip: rip, isPlain: isPlain, at: state.pointee.free)
        // Safe: the page is RAM to its end.
        let byteCount = translator.translate(
            UnsafePointer(bytes.assumingMemoryBound(to: UInt8.self)), available: available)
        guard byteCount > 0 else { return nil }
        state.pointee.free = translator.code.cursor
        let unit = TranslatedUnit(
            physical: physical, rip: rip, mode: mode.number | (isPlain ? TranslatedUnit.plain : 0),
            byteCount: UInt32(truncatingIfNeeded: byteCount),
            start: translator.start, end: translator.code.cursor,
            firstBoundary: state.pointee.index.nextBoundary,
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
        state.pointee.statistics.cycles &+= davit_rdtsc() &- began
        perfMap?.add(
            start: UInt(bitPattern: translator.start + delta), size: translator.code.cursor - translator.start,
            rip: rip,
            isKernel: mode.isKernel)
        return state.pointee.index.insert(unit)
    }

    /// Links the jump that was left to its target. The number of the link follows the call.
    private func link(
        from site: UnsafeMutablePointer<UInt8>, _ mode: TranslationMode, isPlain: Bool
    ) -> UnsafeMutablePointer<UInt8>? {
        let number = UnsafeRawPointer(site).loadUnaligned(as: Int32.self)
        let flushes = state.pointee.statistics.flushes
        guard let unit = unit(at: cpu.pointee.rip, mode, isPlain: isPlain) else { return nil }
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
                state.pointee.rewrites.note(unit.physical)
                JumpCache.remove(cpu, rip: unit.rip, mode: unit.mode & ~TranslatedUnit.plain)
            }
        }
        if let seen {
            state.pointee.seenInvalidations = seen
        } else {
            state.pointee.seenInvalidations = invalidations.count
            forgetAll()
        }
    }

    /// Gives up the oldest segment's units. Nothing runs there: the vCPU is out of translated code, and comes back by what is
    /// found anew.
    private func makeRoom() {
        state.pointee.index.takeNextSegment { unit in
            JumpCache.remove(cpu, rip: unit.rip, mode: unit.mode & ~TranslatedUnit.plain)
        }
        useCurrentSegment()
    }

    private func forgetAll() {
        state.pointee.index.removeAll()
        useCurrentSegment()
        JumpCache.clear(cpu)
    }

    private func useCurrentSegment() {
        let segment = state.pointee.index.current
        let start = pool.writableBase + segment * segmentSize
        state.pointee.free = segment == 0 ? state.pointee.firstFree : start
        state.pointee.end = start + segmentSize
        state.pointee.resumption.unit = -1
        state.pointee.statistics.flushes &+= 1
    }
}
