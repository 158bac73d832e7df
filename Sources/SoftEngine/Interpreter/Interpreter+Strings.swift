import CDavit
import Glibc
import X86

// String instructions (SDM vol. 1, 7.3.9). Repeated ones go forwards a page at a time where RAM is at hand, else element by
// element. Registers always stand at the next element to do, so that a fault or an interrupt may come between any two.
extension Interpreter {
    @inline(never)
    func moveString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        try repeatString(instruction) { limit throws(GuestFault) in
            var n = limit
            if n > 1, let from = sourceRun(string, count: &n), let to = destinationRun(string, count: &n) {
                Self.copyForwards(from: from, to: to, count: n, size: size)
                advance(GeneralRegister.RSI, by: n &* UInt64(size), size: string.addressSize)
                advance(GeneralRegister.RDI, by: n &* UInt64(size), size: string.addressSize)
                return StringProgress(done: n)
            }
            let value = try load(linear: try sourceElement(string), size: size)
            try store(value, linear: try destinationElement(string, write: true), size: size)
            advance(GeneralRegister.RSI, by: step(size), size: string.addressSize)
            advance(GeneralRegister.RDI, by: step(size), size: string.addressSize)
            return StringProgress(done: 1)
        }
    }

    @inline(never)
    func storeString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        let value = readRegister(0, size: size, rex: true)
        try repeatString(instruction) { limit throws(GuestFault) in
            var n = limit
            if n > 1, let to = destinationRun(string, count: &n) {
                Self.fill(to, value, count: n, size: size)
                advance(GeneralRegister.RDI, by: n &* UInt64(size), size: string.addressSize)
                return StringProgress(done: n)
            }
            try store(value, linear: try destinationElement(string, write: true), size: size)
            advance(GeneralRegister.RDI, by: step(size), size: string.addressSize)
            return StringProgress(done: 1)
        }
    }

    @inline(never)
    func loadString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        try repeatString(instruction) { _ throws(GuestFault) in
            let value = try load(linear: try sourceElement(string), size: size)
            writeRegister(0, size: size, rex: true, value)
            advance(GeneralRegister.RSI, by: step(size), size: string.addressSize)
            return StringProgress(done: 1)
        }
    }

    /// CMPS.
    @inline(never)
    func compareStrings(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        let stopsOn = Self.stopCondition(instruction)
        let isSourceFirst = instruction.prefixes.contains(.rep) && size == 1
        try repeatComparison(instruction) { limit throws(GuestFault) in
            var n = limit
            let a: UInt64
            let b: UInt64
            var done: UInt64 = 1
            if n > 1, let from = sourceRun(string, count: &n),
                let to = destinationRun(string, count: &n, write: false)
            {
                done = Self.runLength(n, stopsOn: stopsOn) { i in
                    Self.hostLoad(from + i &* Int(size), size: size) == Self.hostLoad(to + i &* Int(size), size: size)
                }
                let last = Int(truncatingIfNeeded: done &- 1) &* Int(size)
                a = Self.hostLoad(from + last, size: size)
                b = Self.hostLoad(to + last, size: size)
                advance(GeneralRegister.RSI, by: done &* UInt64(size), size: string.addressSize)
                advance(GeneralRegister.RDI, by: done &* UInt64(size), size: string.addressSize)
            } else {
                // Which operand faults first: the one in ES, but for REPE CMPSB. So do AMD's CPUs.
                let early =
                    isSourceFirst ? 0 : try load(linear: try destinationElement(string, write: false), size: size)
                a = try load(linear: try sourceElement(string), size: size)
                b = isSourceFirst ? try load(linear: try destinationElement(string, write: false), size: size) : early
                advance(GeneralRegister.RSI, by: step(size), size: string.addressSize)
                advance(GeneralRegister.RDI, by: step(size), size: string.addressSize)
            }
            setArithmeticFlags(davit_sub(a, b, 0, UInt32(size)).flags)
            return StringProgress(done: done, isEnded: (a == b) == stopsOn)
        }
    }

    /// SCAS.
    @inline(never)
    func scanString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        let stopsOn = Self.stopCondition(instruction)
        let a = readRegister(0, size: size, rex: true)
        try repeatComparison(instruction) { limit throws(GuestFault) in
            var n = limit
            let b: UInt64
            var done: UInt64 = 1
            if n > 1, let to = destinationRun(string, count: &n, write: false) {
                done = Self.runLength(n, stopsOn: stopsOn) { i in
                    a == Self.hostLoad(to + i &* Int(size), size: size)
                }
                b = Self.hostLoad(to + Int(truncatingIfNeeded: done &- 1) &* Int(size), size: size)
                advance(GeneralRegister.RDI, by: done &* UInt64(size), size: string.addressSize)
            } else {
                b = try load(linear: try destinationElement(string, write: false), size: size)
                advance(GeneralRegister.RDI, by: step(size), size: string.addressSize)
            }
            setArithmeticFlags(davit_sub(a, b, 0, UInt32(size)).flags)
            return StringProgress(done: done, isEnded: (a == b) == stopsOn)
        }
    }

    /// INS. The destination is checked before the port is read, which cannot be undone.
    @inline(never)
    func inputString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        let port = UInt16(truncatingIfNeeded: gpr[GeneralRegister.RDX])
        try checkIOPermission(port: port, size: size)
        try repeatString(instruction) { _ throws(GuestFault) in
            let linear = try destinationElement(string, write: true)
            let place = try hostPointerForWrite(linear: linear, size: Int(size))
            let value = UInt64(io.readPort(port, width: Self.portWidth(size)))
            if let place {
                Self.hostStore(place, size: size, value)
            } else {
                try store(value, linear: linear, size: size)
            }
            advance(GeneralRegister.RDI, by: step(size), size: string.addressSize)
            return StringProgress(done: 1)
        }
    }

    @inline(never)
    func outputString(_ instruction: borrowing Instruction) throws(GuestFault) {
        let string = StringOperands(instruction)
        let size = string.size
        let port = UInt16(truncatingIfNeeded: gpr[GeneralRegister.RDX])
        try checkIOPermission(port: port, size: size)
        try repeatString(instruction) { _ throws(GuestFault) in
            let value = try load(linear: try sourceElement(string), size: size)
            io.writePort(port, width: Self.portWidth(size), value: UInt32(truncatingIfNeeded: value))
            advance(GeneralRegister.RSI, by: step(size), size: string.addressSize)
            return StringProgress(done: 1)
        }
    }
}

/// How far one turn of a repeated string instruction came.
private struct StringProgress {
    /// Elements, at least one.
    var done: UInt64
    /// CMPS or SCAS found what ends it.
    var isEnded = false
}

/// What the steps of a string instruction need to know of it.
private struct StringOperands {
    let size: UInt8
    let addressSize: UInt8
    /// Of the source; the destination is always in ES.
    let segment: UInt8

    init(_ instruction: borrowing Instruction) {
        size = instruction.operandSize
        addressSize = instruction.addressSize
        segment = instruction.segment
    }
}

extension Interpreter {
    /// Calls `turn` until rCX elements are done or it says that it is ended; without a REP prefix once, for one element. `turn` gets
    /// the most elements that it may do, and moves rSI and rDI itself. If somebody asks for the vCPU's attention between two
    /// turns, the instruction stays the next one; a single step is one element.
    @inline(__always)
    private func repeatString(
        _ instruction: borrowing Instruction, _ turn: (UInt64) throws(GuestFault) -> StringProgress
    ) throws(GuestFault) {
        guard !instruction.prefixes.isDisjoint(with: [.rep, .repne]) else {
            _ = try turn(1)
            return
        }
        let address = instruction.addressSize
        var count = gpr[GeneralRegister.RCX] & Self.mask(address)
        let isStepped =
            cpu.pointee.rflags & RFLAGS.TF != 0 || davit_cpu_requests(cpu) & DAVIT_EXIT_SINGLE_STEP.rawValue != 0
        while count != 0 {
            let progress = try turn(isStepped ? 1 : count)
            count &-= progress.done
            writeRegister(1, size: address, rex: true, count)
            if progress.isEnded { return }
            if count != 0 && (isStepped || davit_cpu_requests(cpu) != 0) {
                cpu.pointee.next_rip = cpu.pointee.rip
                return
            }
        }
    }

    /// `repeatString` for CMPS and SCAS. When a later element faults, AMD's CPUs keep the flags of the last one that did not;
    /// Intel's go back to those before the instruction (SDM vol. 2, REP).
    @inline(__always)
    private func repeatComparison(
        _ instruction: borrowing Instruction, _ turn: (UInt64) throws(GuestFault) -> StringProgress
    ) throws(GuestFault) {
        let before = cpu.pointee.rflags & RFLAGS.arithmetic
        do throws(GuestFault) {
            try repeatString(instruction, turn)
        } catch {
            if !HostCPUID.isAMD { setArithmeticFlags(before) }
            throw error
        }
    }

    /// REPE ends on a difference, REPNE on equality.
    private static func stopCondition(_ instruction: borrowing Instruction) -> Bool {
        instruction.prefixes.contains(.repne)
    }

    /// By how much the registers move for one element.
    @inline(__always)
    private func step(_ size: UInt8) -> UInt64 {
        cpu.pointee.rflags & RFLAGS.DF != 0 ? 0 &- UInt64(size) : UInt64(size)
    }

    @inline(__always)
    private func advance(_ register: Int, by bytes: UInt64, size: UInt8) {
        writeRegister(UInt8(truncatingIfNeeded: register), size: size, rex: true, gpr[register] &+ bytes)
    }

    @inline(__always)
    private func sourceElement(_ string: StringOperands) throws(GuestFault) -> UInt64 {
        try linearAddress(
            segment: string.segment, offset: gpr[GeneralRegister.RSI] & Self.mask(string.addressSize),
            size: UInt64(string.size), write: false)
    }

    @inline(__always)
    private func destinationElement(
        _ string: StringOperands, write: Bool
    ) throws(GuestFault) -> UInt64 {
        try linearAddress(
            segment: UInt8(DAVIT_ES.rawValue), offset: gpr[GeneralRegister.RDI] & Self.mask(string.addressSize),
            size: UInt64(string.size), write: write)
    }

    /// Host memory behind the elements from rSI on, with `count` cut to those in the page; nil: go element by element.
    @inline(__always)
    private func sourceRun(_ string: StringOperands, count: inout UInt64) -> UnsafeRawPointer? {
        guard
            let linear = run(
                string, segment: string.segment, register: GeneralRegister.RSI, write: false, count: &count)
        else { return nil }
        return UnsafeRawPointer(readableHost(linear))
    }

    /// The same from rDI on.
    @inline(__always)
    private func destinationRun(
        _ string: StringOperands, count: inout UInt64, write: Bool = true
    ) -> UnsafeMutableRawPointer? {
        guard
            let linear = run(
                string, segment: UInt8(DAVIT_ES.rawValue), register: GeneralRegister.RDI, write: write,
                count: &count)
        else { return nil }
        return write ? writableHost(linear, size: count &* UInt64(string.size)) : readableHost(linear)
    }

    /// The linear address of the elements from `register` on, with `count` cut to those that lie whole in one page, in the segment,
    /// and below the address size's end; nil if that is none, or the direction is down.
    private func run(
        _ string: StringOperands, segment: UInt8, register: Int, write: Bool, count: inout UInt64
    ) -> UInt64? {
        guard cpu.pointee.rflags & RFLAGS.DF == 0 else { return nil }
        let mask = Self.mask(string.addressSize)
        let offset = gpr[register] & mask
        let shift = UInt64(truncatingIfNeeded: string.size.trailingZeroBitCount)
        do throws(GuestFault) {
            let linear = try linearAddress(segment: segment, offset: offset, size: UInt64(string.size), write: write)
            let room = min(4096 &- (linear & 0xFFF), mask &- offset)
            count = min(count, room >> shift)
            guard count > 0 else { return nil }
            return try linearAddress(segment: segment, offset: offset, size: count &<< shift, write: write)
        } catch {
            return nil
        }
    }

    /// The host address of a byte in RAM; nil if a look at it faults, or has to be noted.
    @inline(__always)
    private func readableHost(_ linear: UInt64) -> UnsafeMutableRawPointer? {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        guard davit_tlb_hits(davit_tlb_read_tag(tlb)[i], linear, 1) else { return missedHost(linear, .read)?.host }
        // Safe: a matching tag means that the addend leads to a mapped page of guest RAM.
        return UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i]))
    }

    /// The same for `size` bytes in one page that are about to be written.
    @inline(__always)
    private func writableHost(_ linear: UInt64, size: UInt64) -> UnsafeMutableRawPointer? {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_write_tag(tlb)[i], linear, 1) {
            // Safe: as in `readableHost`, and the page may be written.
            return UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i]))
        }
        guard let (physical, host) = missedHost(linear, .write) else { return nil }
        // Of the turn before, which wrote to another page.
        finishCodeWrite()
        if !code.isPlain(page: physical) {
            system.pointee.pendingCodeWrite = physical
            system.pointee.pendingCodeWriteSize = size
        }
        return host
    }

    /// Source and destination may push each other out of the first-level TLB: so this looks at the translation itself.
    private func missedHost(_ linear: UInt64, _ kind: AccessKind) -> (physical: UInt64, host: UnsafeMutableRawPointer)?
    {
        guard cpu.pointee.tlb_current != emptyTLB else { return nil }
        let cr2 = cpu.pointee.cr2
        let mode = cpu.pointee.tlb_mode
        guard let translation = try? translate(linear, mode: mode, kind: kind) else {
            // Going on element by element will raise the fault.
            cpu.pointee.cr2 = cr2
            return nil
        }
        let physical = translation & ~PageRights.mask | linear & 0xFFF
        let place = kind == .write ? writableHostAddress(physical: physical) : hostAddress(physical: physical)
        guard let host = place, physical & ~0xFFF != cpu.pointee.apic_page else { return nil }
        davit_tlb_fill(cpu, linear, translation, mode)
        return (physical, host)
    }

    /// Copies `count` elements as a loop over them would: a destination a little above the source repeats a pattern.
    private static func copyForwards(
        from: UnsafeRawPointer, to: UnsafeMutableRawPointer, count: UInt64, size: UInt8
    ) {
        // Safe: both runs lie in pages of guest RAM that the TLB has granted; `count` was cut to them.
        let bytes = Int(truncatingIfNeeded: count) &* Int(size)
        let distance = UInt(bitPattern: to) &- UInt(bitPattern: from)
        guard distance != 0 && distance < UInt(bytes) else {
            memmove(to, from, bytes)
            return
        }
        var i = 0
        while i < bytes {
            hostStore(to + i, size: size, hostLoad(from + i, size: size))
            i &+= Int(size)
        }
    }

    private static func fill(_ to: UnsafeMutableRawPointer, _ value: UInt64, count: UInt64, size: UInt8) {
        // Safe: as in `copyForwards`.
        let bytes = Int(truncatingIfNeeded: count) &* Int(size)
        let byte = value & 0xFF
        if value == byte &* 0x0101_0101_0101_0101 & mask(size) {
            memset(to, Int32(truncatingIfNeeded: byte), bytes)
            return
        }
        var i = 0
        while i < bytes {
            hostStore(to + i, size: size, value)
            i &+= Int(size)
        }
    }

    /// How many of `count` elements are compared until `isEqual` gives `stopsOn`, that one included.
    @inline(__always)
    private static func runLength(_ count: UInt64, stopsOn: Bool, _ isEqual: (Int) -> Bool) -> UInt64 {
        var i: UInt64 = 0
        while i < count {
            i &+= 1
            if isEqual(Int(truncatingIfNeeded: i &- 1)) == stopsOn { break }
        }
        return i
    }
}
