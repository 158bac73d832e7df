import CDavit
import X86

extension Interpreter {
    /// MMX, SSE, AVX and x87 instructions: the host CPU carries out the very instruction on operands that were fetched for it.
    func executeOnHost(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .vector:
            let shape = host.shape(of: instruction)
            if ThunkForm.hasX87(instruction, shape) {
                try executeMMX(instruction, shape)
            } else {
                try executeVector(instruction, shape)
            }
        case .x87: try executeX87(instruction)
        case .emms: try executeMMX(instruction, VectorShape())
        case .fwait: try wait()
        case .vzero: try clearVectors(instruction)
        case .ldmxcsr: try loadMXCSR(instruction)
        case .stmxcsr: try storeMXCSR(instruction)
        case .maskmov: try storeMaskedBytes(instruction)
        default:
            // Operands of many parts need no alignment but what the instruction itself asks for.
            let checksAlignment = system.pointee.checksAlignment
            system.pointee.checksAlignment = false
            defer { system.pointee.checksAlignment = checksAlignment }
            try executeInParts(instruction)
        }
    }

    private func executeInParts(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .vmaskmov: try moveMasked(instruction)
        case .gather: try gather(instruction)
        case .fxsave: try saveFXState(instruction)
        case .fxrstor: try restoreFXState(instruction)
        case .xsave: try saveExtendedState(instruction, .standard)
        case .xsaveopt: try saveExtendedState(instruction, .optimized)
        case .xsavec: try saveExtendedState(instruction, .compacted)
        case .xsaves:
            // Without supervisor components in IA32_XSS it does what XSAVEC does.
            if cpu.pointee.cpl != 0 { throw .generalProtection }
            try saveExtendedState(instruction, .compacted)
        case .xrstors:
            if cpu.pointee.cpl != 0 { throw .generalProtection }
            try restoreExtendedState(instruction)
        case .xrstor: try restoreExtendedState(instruction)
        default: throw .invalidOpcode
        }
    }

    /// The XSAVE image in `davit_cpu`.
    @inline(__always)
    var xsave: UnsafeMutableRawPointer { UnsafeMutableRawPointer(davit_cpu_xsave(cpu)) }

    /// MXCSR.MM: misaligned operands are allowed (AMD APM vol. 2, 11.3).
    private static var mxcsrMM: UInt32 { 1 << 17 }

    @inline(__always)
    var mxcsr: UInt32 { xsave.load(fromByteOffset: 24, as: UInt32.self) }

    /// Where a vector register's lower half is kept; its upper half is 416 bytes on.
    @inline(__always)
    func vectorPlace(_ number: UInt8) -> UnsafeMutableRawPointer { xsave + (160 &+ Int(number & 15) &* 16) }

    // MARK: Whether the guest may

    /// Legacy SSE: CR0.EM, CR4.OSFXSR, CR0.TS (SDM vol. 2, table 2-21).
    @inline(__always)
    func requireSSE() throws(GuestFault) {
        let cr0 = cpu.pointee.cr0
        if cr0 & CR0.EM == 0 && cpu.pointee.cr4 & CR4.OSFXSR != 0 && cr0 & CR0.TS == 0 { return }
        if cr0 & CR0.EM != 0 || cpu.pointee.cr4 & CR4.OSFXSR == 0 { throw .invalidOpcode }
        throw .deviceNotAvailable
    }

    /// VEX-encoded: protected mode, CR4.OSXSAVE, XCR0, CR0.TS.
    @inline(__always)
    func requireAVX() throws(GuestFault) {
        let both = XCR0.SSE | XCR0.AVX
        let isAllowed =
            isProtected && !isVirtual8086 && cpu.pointee.cr4 & CR4.OSXSAVE != 0 && cpu.pointee.xcr0 & both == both
        if !isAllowed { throw .invalidOpcode }
        if cpu.pointee.cr0 & CR0.TS != 0 { throw .deviceNotAvailable }
    }

    // MARK: Vectors

    @inline(__always)
    private func executeVector(_ instruction: borrowing Instruction, _ shape: VectorShape) throws(GuestFault) {
        if instruction.prefixes.contains(.vex) { try requireAVX() } else { try requireSSE() }
        let gpr = UnsafeMutableRawPointer(gpr)
        let reg = shape.reg == .general ? gpr + Int(instruction.reg & 15) &* 8 : vectorPlace(instruction.reg)
        let vvvv = vectorPlace(instruction.vvvv)
        // There are eight registers outside 64-bit mode: the highest bit is ignored.
        let immediate = vectorPlace(UInt8(truncatingIfNeeded: instruction.immediate >> 4) & (is64Bit ? 15 : 7))
        let thunk = host.thunk(instruction, shape, allowsMisaligned: mxcsr & Self.mxcsrMM != 0)
        guard instruction.isMemory else {
            let rm = shape.rm == .general ? gpr + Int(instruction.rm & 15) &* 8 : vectorPlace(instruction.rm)
            let vector = thunk(reg, rm, vvvv, immediate, cpu)
            if vector != 0 { throw hostFault(vector) }
            return
        }
        var size = Int(instruction.operandSize)
        let isStore = shape.access.contains(.writesRM)
        if shape.access.contains(.aligned), uncheckedAddress(instruction) & UInt64(size &- 1) != 0 {
            try checkMisaligned(instruction, isStore: isStore)
        }
        let linear = try operandAddress(instruction, size: UInt64(size), write: isStore)
        if system.pointee.checksAlignment { try checkAlignment(linear, size: size) }
        if size == 16 { size = operandBytes(instruction) }
        let operand = isStore ? try storeOperand(linear, size: size) : try loadOperand(linear, size: size)
        let vector = thunk(reg, operand.place, vvvv, immediate, cpu)
        if vector != 0 { throw hostFault(vector) }
        if operand.isCopy && isStore { try finishStore(linear, size: size) }
    }

    /// How much is read of an operand of 16 bytes: legacy PUNPCKLxx, UNPCKLPx and shifts by a count use the lower half of it, and
    /// AMD's CPUs read no more.
    @inline(__always)
    private func operandBytes(_ instruction: borrowing Instruction) -> Int {
        guard isAMD, instruction.map == 1, !instruction.prefixes.contains(.vex) else { return 16 }
        switch instruction.opcode {
        case 0x14, 0x60...0x62, 0x6C, 0xD1...0xD3, 0xE1, 0xE2, 0xF1...0xF3: return 8
        default: return 16
        }
    }

    /// The memory operand's linear address before any check: alignment comes first.
    @inline(__always)
    func uncheckedAddress(_ instruction: borrowing Instruction) -> UInt64 {
        let segment = instruction.segment
        let base = is64Bit && segment < 4 ? 0 : segments[Int(segment)].base
        return base &+ effectiveOffset(instruction)
    }

    /// A misaligned operand raises #GP before its page is looked at. Where CPUs differ, the host decides as it carries the
    /// instruction out: on all but moves under AMD's MXCSR.MM, and on SHA, which AMD's CPUs carry out anyway.
    @inline(never)
    func checkMisaligned(_ instruction: borrowing Instruction, isStore: Bool) throws(GuestFault) {
        let opcode = instruction.opcode
        let isAllowed: Bool
        switch instruction.map {
        case 1: isAllowed = opcode != 0x28 && opcode != 0x6F
        case 2:
            if (0xC8...0xCD).contains(opcode) { return }
            isAllowed = opcode != 0x2A
        default:
            if opcode == 0xCC { return }
            isAllowed = true
        }
        if isStore || !isAllowed || mxcsr & Self.mxcsrMM == 0 { throw .generalProtection }
    }

    /// #AC, where EFLAGS.AC asks for it, comes before the page is looked at. Operands are checked for alignment to their size,
    /// up to 16 bytes; state areas for that of their fields.
    @inline(never)
    func checkAlignment(_ linear: UInt64, size: Int) throws(GuestFault) {
        let unit: Int
        switch size {
        case 10: unit = 8
        case 14, 94: unit = 2
        case 28, 108, 512...: unit = 4
        default: unit = min(size, 16)
        }
        if linear & UInt64(unit &- 1) != 0 { throw GuestFault(.AC, errorCode: 0) }
    }

    /// The guest's exception for one that the host raised in a thunk.
    func hostFault(_ vector: UInt64) -> GuestFault {
        switch vector {
        case UInt64(ExceptionVector.XM.rawValue):
            cpu.pointee.cr4 & CR4.OSXMMEXCPT != 0 ? GuestFault(.XM) : .invalidOpcode
        case UInt64(ExceptionVector.MF.rawValue): GuestFault(.MF)
        case UInt64(ExceptionVector.AC.rawValue): GuestFault(.AC, errorCode: 0)
        case UInt64(ExceptionVector.GP.rawValue): .generalProtection
        case UInt64(ExceptionVector.UD.rawValue): .invalidOpcode
        // The host could not give a page of guest RAM.
        default: GuestFault(.MC)
        }
    }

    // MARK: Memory operands

    /// A memory operand as a thunk takes it.
    struct HostOperand {
        /// Aligned like the guest's, up to 64 bytes.
        let place: UnsafeMutableRawPointer
        /// In `host.scratch`, not in RAM.
        let isCopy: Bool
    }

    /// The operand where it stands in RAM, if it does in one piece and the TLB knows it; else a copy.
    @inline(__always)
    func loadOperand(_ linear: UInt64, size: Int) throws(GuestFault) -> HostOperand {
        let tlb = cpu.pointee.tlb_current
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_read_tag(tlb)[i], linear, UInt64(truncatingIfNeeded: size)) {
            // Safe: a matching tag means that the addend leads to a mapped page of guest RAM; the thunk only reads.
            let place = UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i]))
            return HostOperand(place: place.unsafelyUnwrapped, isCopy: false)
        }
        return HostOperand(place: try copyOperand(linear, size: size), isCopy: true)
    }

    /// Copies an operand into the scratch buffer, in pieces of eight bytes, the last one smaller.
    @inline(never)
    func copyOperand(_ linear: UInt64, size: Int) throws(GuestFault) -> UnsafeMutableRawPointer {
        let place = scratchPlace(linear)
        var done = 0
        while done < size {
            let piece = Self.piece(size &- done)
            let value = try load(linear: linear &+ UInt64(done), size: UInt8(piece))
            withUnsafeBytes(of: value) {
                (place + done).copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: piece)
            }
            done &+= piece
        }
        return place
    }

    /// Where an operand is to be written: its page faults are raised here.
    @inline(__always)
    func storeOperand(_ linear: UInt64, size: Int) throws(GuestFault) -> HostOperand {
        if let place = try hostPointerForWrite(linear: linear, size: size) {
            return HostOperand(place: place, isCopy: false)
        }
        return HostOperand(place: scratchPlace(linear), isCopy: true)
    }

    /// Writes what a thunk left in the scratch buffer; access was granted by `storeOperand`.
    @inline(never)
    func finishStore(_ linear: UInt64, size: Int) throws(GuestFault) {
        let place = scratchPlace(linear)
        var done = 0
        while done < size {
            let piece = Self.piece(size &- done)
            var value: UInt64 = 0
            withUnsafeMutableBytes(of: &value) {
                $0.baseAddress.unsafelyUnwrapped.copyMemory(from: place + done, byteCount: piece)
            }
            try store(value, linear: linear &+ UInt64(done), size: UInt8(piece))
            done &+= piece
        }
    }

    @inline(__always)
    private func scratchPlace(_ linear: UInt64) -> UnsafeMutableRawPointer {
        host.scratch + Int(truncatingIfNeeded: linear & 63)
    }

    @inline(__always)
    static func piece(_ rest: Int) -> Int { rest >= 8 ? 8 : rest >= 4 ? 4 : rest >= 2 ? 2 : 1 }
}
