import CDavit
import X86

// x87 and MMX. The guest's registers live in the FXSAVE part of the XSAVE image; a thunk loads all of them, carries out the
// instruction and saves them. The pointers to the last instruction and operand, which there would name thunks, are kept in
// `davit_cpu.fpu_ip` and its neighbours.
extension Interpreter {
    /// The exception summary bit of the status word: an unmasked exception waits for the next instruction that asks.
    @inline(__always)
    private var hasPendingException: Bool { xsave.load(fromByteOffset: 2, as: UInt16.self) & 0x80 != 0 }

    // MARK: MMX

    /// MMX instructions, those that also touch an XMM register, and EMMS.
    func executeMMX(_ instruction: borrowing Instruction, _ shape: VectorShape) throws(GuestFault) {
        let touchesXMM = shape.reg == .vector || shape.rm == .vector
        if touchesXMM && cpu.pointee.cr4 & CR4.OSFXSR == 0 { throw .invalidOpcode }
        try requireMMX()
        let general = UnsafeMutableRawPointer(gpr)
        let reg = general + Int(instruction.reg & 15) &* 8
        let thunk = host.thunk(instruction, shape)
        guard instruction.isMemory else {
            let rm = general + Int(instruction.rm & 15) &* 8
            let vector = thunk(reg, rm, xsave, xsave, cpu)
            if vector != 0 { throw hostFault(vector) }
            return
        }
        let size = Int(instruction.operandSize)
        let isStore = shape.access.contains(.writesRM)
        if shape.access.contains(.aligned), uncheckedAddress(instruction) & UInt64(size &- 1) != 0 {
            try checkMisaligned(instruction, isStore: isStore)
        }
        let linear = try operandAddress(instruction, size: UInt64(size), write: isStore)
        if system.pointee.checksAlignment { try checkAlignment(linear, size: size) }
        let operand = isStore ? try storeOperand(linear, size: size) : try loadOperand(linear, size: size)
        let vector = thunk(reg, operand.place, xsave, xsave, cpu)
        if vector != 0 { throw hostFault(vector) }
        if operand.isCopy && isStore { try finishStore(linear, size: size) }
    }

    func requireMMX() throws(GuestFault) {
        if cpu.pointee.cr0 & CR0.EM != 0 { throw .invalidOpcode }
        if cpu.pointee.cr0 & CR0.TS != 0 { throw .deviceNotAvailable }
        if hasPendingException { throw GuestFault(.MF) }
    }

    /// Where an MMX register is kept: they are numbered from register 0, the image from the top of the stack.
    func mmxPlace(_ number: UInt8) -> UnsafeMutableRawPointer {
        let top = Int(xsave.load(fromByteOffset: 2, as: UInt16.self) >> 11 & 7)
        return xsave + (32 &+ ((Int(number) &- top) & 7) &* 16)
    }

    /// What every MMX instruction but EMMS does to x87 state: the top of the stack is 0, all registers are in use.
    func enterMMX() {
        let status = xsave.load(fromByteOffset: 2, as: UInt16.self)
        let top = Int(status >> 11 & 7)
        if top != 0 {
            // The image is in the order of the stack: it turns with the top.
            withUnsafeTemporaryAllocation(byteCount: 128, alignment: 16) { copy in
                let old = copy.baseAddress.unsafelyUnwrapped
                old.copyMemory(from: xsave + 32, byteCount: 128)
                for i in 0..<8 {
                    (xsave + (32 &+ i &* 16)).copyMemory(from: old + ((i &- top) & 7) &* 16, byteCount: 16)
                }
            }
        }
        xsave.storeBytes(of: status & ~(7 << 11), toByteOffset: 2, as: UInt16.self)
        xsave.storeBytes(of: 0xFF, toByteOffset: 4, as: UInt8.self)
    }

    // MARK: x87

    /// FWAIT.
    func wait() throws(GuestFault) {
        let both = CR0.MP | CR0.TS
        if cpu.pointee.cr0 & both == both { throw .deviceNotAvailable }
        if hasPendingException { throw GuestFault(.MF) }
    }

    func executeX87(_ instruction: borrowing Instruction) throws(GuestFault) {
        if cpu.pointee.cr0 & (CR0.EM | CR0.TS) != 0 { throw .deviceNotAvailable }
        let shape = host.shape(of: instruction)
        if !shape.access.contains(.nonWaiting) && hasPendingException { throw GuestFault(.MF) }
        let thunk = host.thunk(instruction, shape)
        guard instruction.isMemory else {
            let vector = thunk(xsave, xsave, xsave, xsave, cpu)
            if vector != 0 { throw hostFault(vector) }
            if !shape.access.contains(.nonWaiting) {
                noteX87Instruction(instruction)
            } else if UInt16(instruction.opcode) << 8 | UInt16(instruction.modrm) == 0xDBE3 {
                // FNINIT.
                forgetX87Pointers()
            }
            return
        }
        if instruction.operandSize >= 14 { return try executeEnvironment(instruction, shape, thunk) }

        let size = Int(instruction.operandSize)
        let isStore = shape.access.contains(.writesRM)
        let offset = effectiveOffset(instruction)
        let linear = try linearAddress(
            segment: instruction.segment, offset: offset, size: UInt64(size), write: isStore)
        if system.pointee.checksAlignment { try checkAlignment(linear, size: size) }
        let operand = isStore ? try storeOperand(linear, size: size) : try loadOperand(linear, size: size)
        // An unmasked exception leaves the destination alone.
        if operand.isCopy && isStore { _ = try copyOperand(linear, size: size) }
        let vector = thunk(xsave, operand.place, xsave, xsave, cpu)
        if vector != 0 { throw hostFault(vector) }
        if operand.isCopy && isStore { try finishStore(linear, size: size) }
        if shape.access.isDisjoint(with: [.nonWaiting, .keepsPointers]) {
            noteX87Instruction(instruction)
            cpu.pointee.fpu_dp = offset
            cpu.pointee.fpu_ds = is64Bit ? 0 : segments[Int(instruction.segment)].selector
        }
    }

    private func noteX87Instruction(_ instruction: borrowing Instruction) {
        cpu.pointee.fpu_ip = cpu.pointee.rip
        cpu.pointee.fpu_cs = segments[Int(DAVIT_CS.rawValue)].selector
        cpu.pointee.fpu_opcode = UInt16(instruction.opcode & 7) << 8 | UInt16(instruction.modrm)
    }

    func forgetX87Pointers() {
        cpu.pointee.fpu_ip = 0
        cpu.pointee.fpu_dp = 0
        cpu.pointee.fpu_opcode = 0
        cpu.pointee.fpu_cs = 0
        cpu.pointee.fpu_ds = 0
    }

    // MARK: FNSTENV, FLDENV, FNSAVE, FRSTOR

    /// The host's instruction moves the state between registers and scratch buffer; the pointers are put in or taken out here.
    private func executeEnvironment(
        _ instruction: borrowing Instruction, _ shape: VectorShape, _ thunk: HostExecutor.Thunk
    ) throws(GuestFault) {
        let size = Int(instruction.operandSize)
        let isStore = shape.access.contains(.writesRM)
        let linear = try operandAddress(instruction, size: UInt64(size), write: isStore)
        let checksAlignment = system.pointee.checksAlignment
        if checksAlignment { try checkAlignment(linear, size: size) }
        system.pointee.checksAlignment = false
        defer { system.pointee.checksAlignment = checksAlignment }
        guard isStore else {
            let place = try copyOperand(linear, size: size)
            let vector = thunk(xsave, place, xsave, xsave, cpu)
            if vector != 0 { throw hostFault(vector) }
            takeX87Pointers(from: place, size: size)
            return
        }
        let operand = try storeOperand(linear, size: size)
        let vector = thunk(xsave, operand.place, xsave, xsave, cpu)
        if vector != 0 { throw hostFault(vector) }
        putX87Pointers(into: operand.place, size: size)
        if operand.isCopy { try finishStore(linear, size: size) }
        // FNSAVE goes on to FNINIT.
        if size > 28 { forgetX87Pointers() }
    }

    /// Real and virtual-8086 mode keep linear addresses of 20 or 32 bits instead of selectors (SDM vol. 1, figures 8-9 to 8-12).
    private var keepsLinearX87Pointers: Bool { !isProtected || isVirtual8086 }

    private func putX87Pointers(into place: UnsafeMutableRawPointer, size: Int) {
        let opcode = UInt32(cpu.pointee.fpu_opcode & 0x7FF)
        var ip = UInt32(truncatingIfNeeded: cpu.pointee.fpu_ip)
        var dp = UInt32(truncatingIfNeeded: cpu.pointee.fpu_dp)
        func put(_ value: UInt32, at offset: Int, wide: Bool) {
            if wide {
                place.storeBytes(of: value, toByteOffset: offset, as: UInt32.self)
            } else {
                place.storeBytes(of: UInt16(truncatingIfNeeded: value), toByteOffset: offset, as: UInt16.self)
            }
        }
        let isWide = size == 28 || size == 108
        if keepsLinearX87Pointers {
            ip = ip &+ UInt32(cpu.pointee.fpu_cs) << 4
            dp = dp &+ UInt32(cpu.pointee.fpu_ds) << 4
            if isWide {
                put(ip & 0xFFFF, at: 12, wide: true)
                put(opcode | (ip >> 16) << 12, at: 16, wide: true)
                put(dp & 0xFFFF, at: 20, wide: true)
                put((dp >> 16) << 12, at: 24, wide: true)
            } else {
                put(ip, at: 6, wide: false)
                put(opcode | (ip >> 16) << 12, at: 8, wide: false)
                put(dp, at: 10, wide: false)
                put((dp >> 16) << 12, at: 12, wide: false)
            }
        } else if isWide {
            put(ip, at: 12, wide: true)
            put(UInt32(cpu.pointee.fpu_cs) | opcode << 16, at: 16, wide: true)
            put(dp, at: 20, wide: true)
            put(UInt32(cpu.pointee.fpu_ds), at: 24, wide: false)
        } else {
            put(ip, at: 6, wide: false)
            put(UInt32(cpu.pointee.fpu_cs), at: 8, wide: false)
            put(dp, at: 10, wide: false)
            put(UInt32(cpu.pointee.fpu_ds), at: 12, wide: false)
        }
    }

    private func takeX87Pointers(from place: UnsafeMutableRawPointer, size: Int) {
        func word(_ offset: Int) -> UInt16 { place.loadUnaligned(fromByteOffset: offset, as: UInt16.self) }
        func long(_ offset: Int) -> UInt32 { place.loadUnaligned(fromByteOffset: offset, as: UInt32.self) }
        let isWide = size == 28 || size == 108
        forgetX87Pointers()
        if keepsLinearX87Pointers {
            let low = isWide ? (long(12) & 0xFFFF, long(20) & 0xFFFF) : (UInt32(word(6)), UInt32(word(10)))
            let high = isWide ? (long(16), long(24)) : (UInt32(word(8)), UInt32(word(12)))
            cpu.pointee.fpu_ip = UInt64(low.0 | (high.0 >> 12 & 0xFFFF) << 16)
            cpu.pointee.fpu_dp = UInt64(low.1 | (high.1 >> 12 & 0xFFFF) << 16)
            cpu.pointee.fpu_opcode = UInt16(truncatingIfNeeded: high.0 & 0x7FF)
        } else if isWide {
            cpu.pointee.fpu_ip = UInt64(long(12))
            cpu.pointee.fpu_cs = word(16)
            cpu.pointee.fpu_opcode = word(18) & 0x7FF
            cpu.pointee.fpu_dp = UInt64(long(20))
            cpu.pointee.fpu_ds = word(24)
        } else {
            cpu.pointee.fpu_ip = UInt64(word(6))
            cpu.pointee.fpu_cs = word(8)
            cpu.pointee.fpu_dp = UInt64(word(10))
            cpu.pointee.fpu_ds = word(12)
        }
    }

    // MARK: Pointers in the XSAVE image

    /// Takes the x87 pointers from the XSAVE image's 64-bit form: after the image came from elsewhere.
    func adoptX87Pointers() {
        forgetX87Pointers()
        cpu.pointee.fpu_opcode = xsave.load(fromByteOffset: 6, as: UInt16.self) & 0x7FF
        cpu.pointee.fpu_ip = keptPointer(xsave.load(fromByteOffset: 8, as: UInt64.self))
        cpu.pointee.fpu_dp = keptPointer(xsave.load(fromByteOffset: 16, as: UInt64.self))
    }

    private func keptPointer(_ pointer: UInt64) -> UInt64 {
        let unused = host.unusedPointerBits
        return UInt64(bitPattern: Int64(bitPattern: pointer << unused) >> Int64(unused))
    }

    /// Puts the x87 pointers into the XSAVE image's 64-bit form: before the image is given away.
    func publishX87Pointers() {
        let isKept = host.keepsX87Pointers || hasPendingException
        xsave.storeBytes(of: isKept ? cpu.pointee.fpu_opcode : 0, toByteOffset: 6, as: UInt16.self)
        xsave.storeBytes(of: isKept ? cpu.pointee.fpu_ip : 0, toByteOffset: 8, as: UInt64.self)
        xsave.storeBytes(of: isKept ? cpu.pointee.fpu_dp : 0, toByteOffset: 16, as: UInt64.self)
    }
}
