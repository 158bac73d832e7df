import COracle
import SoftEngine

// The kinds of pieces.
extension ProgramGenerator {
    mutating func piece() -> ProgramPiece {
        switch below(100) {
        case 0..<52: return instruction()
        case 52..<60: return branch()
        case 60..<64: return backwardBranch()
        case 64..<70: return call()
        case 70..<73: return indirectJump()
        case 73..<77: return stackPiece()
        case 77..<81: return string()
        case 81..<85: return selfModification()
        case 85..<90: return victim()
        case 90..<92: return flags()
        default: return system()
        }
    }

    func end() -> ProgramPiece { ProgramPiece(bytes: [0xCD, ProgramLayout.endVector]) }

    mutating func ret() -> ProgramPiece {
        chance(80) ? ProgramPiece(bytes: [0xC3]) : ProgramPiece(bytes: [0xC2, UInt8(below(3)) * 8, 0])
    }

    // MARK: Single instructions

    /// MOV r, imm of the machine's width.
    func move(_ register: UInt8, _ value: UInt64) -> ProgramPiece {
        var piece = ProgramPiece()
        let isWide = value > 0xFFFF_FFFF && !is32Bit
        let rex: UInt8 = (isWide ? 0x48 : 0x40) | register >> 3
        if rex != 0x40 { piece.bytes.append(rex) }
        piece.bytes.append(0xB8 | register & 7)
        if isWide { piece.quad(value) } else { piece.word(value) }
        return piece
    }

    /// MOV r, imm that a fix-up fills in.
    private func move(_ register: UInt8, addressOf target: Int) -> ProgramPiece {
        var piece = ProgramPiece()
        if !is32Bit { piece.bytes.append(0x48 | register >> 3) }
        piece.bytes.append(0xB8 | register & 7)
        piece.fix(is32Bit ? .address32(target) : .address64(target))
        return piece
    }

    private func joined(_ first: ProgramPiece, _ second: ProgramPiece) -> ProgramPiece {
        var piece = first
        for fixup in second.fixups {
            var moved = fixup
            moved.offset += first.bytes.count
            if case .distance(let address, let end) = fixup.kind {
                moved.kind = .distance(address, end: end + first.bytes.count)
            }
            piece.fixups.append(moved)
        }
        piece.bytes += second.bytes
        if let victim = second.victim { piece.victim = (victim.offset + first.bytes.count, victim.size) }
        return piece
    }

    /// A register that pieces may use for addresses: not the stack pointer.
    private mutating func register() -> UInt8 {
        while true {
            let register = UInt8(below(is32Bit ? 8 : 16))
            if register != 4 { return register }
        }
    }

    mutating func instruction() -> ProgramPiece {
        let buffer = UnsafeMutablePointer<UInt8>.allocate(capacity: 16)
        defer { buffer.deallocate() }
        while true {
            let rows = groups[Int(below(UInt64(groups.count)))]
            encoder.encode(rows[Int(below(UInt64(rows.count)))], buffer)
            guard let decoded = bench.decode(buffer, available: 15, codeSize: encoder.mode.codeSize),
                decoded.row != 0 || chance(3), decoded.hint != .stateComponents, decoded.hint != .legacyArea,
                !decoded.usesStack || chance(5)
            else { continue }
            var piece = ProgramPiece(bytes: Array(UnsafeBufferPointer(start: buffer, count: decoded.length)))
            prepareOperands(decoded, &piece)
            return piece
        }
    }

    /// Puts what chooses good operands before an instruction.
    private mutating func prepareOperands(_ decoded: InstructionBench.Decoded, _ piece: inout ProgramPiece) {
        func before(_ register: UInt8, _ value: UInt64) { piece = joined(move(register, value), piece) }
        if decoded.isMemory && chance(88) { aim(decoded, &piece) }
        switch decoded.hint {
        case .string:
            before(1, below(chance(90) ? 24 : 3000))
            before(6, dataAddress(size: 16))
            before(7, dataAddress(size: 16))
        case .bitOffset: if chance(70) { before(decoded.reg & (is32Bit ? 7 : 15), below(512)) }
        case .division: if chance(60) { before(2, below(4)) }
        case .implicitPointer:
            before(7, dataAddress(size: 16))
            before(3, dataAddress(size: 8))
        case .stack: if chance(70) { before(5, stackAddress()) }
        default: break
        }
    }

    /// Lets the memory operand lie at an address of choice.
    private mutating func aim(_ decoded: InstructionBench.Decoded, _ piece: inout ProgramPiece) {
        let size = UInt64(max(1, decoded.operandSize))
        var address = dataAddress(size: size)
        if !is32Bit && decoded.segment == 4 { address &-= program.setup.fsBase }
        if !is32Bit && decoded.segment == 5 { address &-= program.setup.gsBase }
        let hasIndex = decoded.index < 16 && !decoded.isGather
        if decoded.base < 16 {
            if decoded.base == 4 || hasIndex && decoded.index == decoded.base { return }
            var value = address &- UInt64(bitPattern: decoded.displacement)
            if hasIndex {
                let index = below(0x1000)
                value &-= index << UInt64(decoded.scale)
                piece = joined(move(decoded.index, index), piece)
            }
            piece = joined(move(decoded.base, is32Bit ? value & 0xFFFF_FFFF : value), piece)
            return
        }
        // The displacement is the address: behind ModRM and SIB, or all that follows the opcode.
        let width = encoder.modrmPosition < 0 ? Int(decoded.addressSize) : decoded.addressSize == 2 ? 2 : 4
        let modrm = encoder.modrmPosition
        let place =
            modrm < 0
            ? decoded.length - width : modrm + (width == 4 && piece.bytes[modrm] & 7 == 4 ? 2 : 1)
        guard place >= 0, place + width <= piece.bytes.count else { return }
        if decoded.base == 16 {
            piece.fixups.append(.init(offset: place, kind: .distance(address, end: decoded.length)))
            return
        }
        if hasIndex {
            let index = below(0x1000)
            address &-= index << UInt64(decoded.scale)
            piece.setWord(address, at: place, size: width)
            piece = joined(move(decoded.index, index), piece)
        } else {
            piece.setWord(address, at: place, size: width)
        }
    }

    // MARK: Branches

    /// Index of the piece being made.
    private var here: Int { program.pieces.count }

    /// Over the next piece or further.
    private mutating func branch() -> ProgramPiece {
        var piece = ProgramPiece()
        let target = min(here + 1 + Int(below(5)), pieceCount - 1)
        switch below(10) {
        case 0..<5:
            piece.bytes = [0x0F, 0x80 | UInt8(below(16))]
            piece.fix(.relative32(target))
        case 5..<8:
            piece.bytes = [0x70 | UInt8(below(16))]
            piece.fix(.relative8(min(here + 1, pieceCount - 1)))
        case 8:
            // LOOPNE, LOOPE, LOOP, JCXZ.
            piece.bytes = [0xE0 | UInt8(below(4))]
            piece.fix(.relative8(min(here + 1, pieceCount - 1)))
        default:
            piece.bytes = [0xE9]
            piece.fix(.relative32(target))
        }
        return piece
    }

    /// Back to an earlier piece as long as there is fuel: dec dword [fuel]; js over; jcc back.
    private mutating func backwardBranch() -> ProgramPiece {
        var piece = ProgramPiece(bytes: [0xFF, 0x0C, 0x25])
        if is32Bit { piece.bytes = [0xFF, 0x0D] }
        let window = !isUser && program.window == ProgramLayout.high ? ProgramLayout.high : ProgramLayout.low
        piece.word(window &+ ProgramLayout.fuel)
        let target = max(0, here - Int(below(6)))
        let jump: [UInt8] = chance(30) ? [0xE9] : [0x0F, 0x80 | UInt8(below(16))]
        piece.bytes += [0x78, UInt8(jump.count + 4)] + jump
        piece.fix(.relative32(target))
        return piece
    }

    private mutating func call() -> ProgramPiece {
        guard !functionStarts.isEmpty else { return instruction() }
        let start = functionStarts[Int(below(UInt64(functionStarts.count)))]
        // A function calls only those behind it.
        guard start > here else { return instruction() }
        var piece = ProgramPiece()
        let register = register()
        switch below(5) {
        case 0, 1:
            piece.bytes = [0xE8]
            piece.fix(.relative32(start))
        case 2, 3:
            piece = move(register, addressOf: start)
            if register > 7 { piece.bytes.append(0x41) }
            piece.bytes += [0xFF, 0xD0 | register & 7]
        default:
            // Through memory: mov [address], register; call [address].
            piece = move(register, addressOf: start)
            let address = program.window == ProgramLayout.high ? ProgramLayout.high : ProgramLayout.low
            piece.bytes += (is32Bit ? [] : [0x48 | (register > 7 ? 4 : 0)]) + [0x89, (register & 7) << 3 | 4, 0x25]
            piece.word(address &+ ProgramLayout.fuel &+ 0x100)
            piece.bytes += [0xFF, 0x14, 0x25]
            piece.word(address &+ ProgramLayout.fuel &+ 0x100)
        }
        return piece
    }

    private mutating func indirectJump() -> ProgramPiece {
        let target = min(here + 1 + Int(below(4)), pieceCount - 1)
        let register = register()
        var piece = move(register, addressOf: target)
        switch below(10) {
        case 0..<5:
            if register > 7 { piece.bytes.append(0x41) }
            piece.bytes += [0xFF, 0xE0 | register & 7]
        case 5..<8:
            // PUSH; RET.
            if register > 7 { piece.bytes.append(0x41) }
            piece.bytes += [0x50 | register & 7, 0xC3]
        case 8:
            // To where no code is, or not canonical.
            let address = chance(30) ? 0x7FFF_FFFF_FFFF &+ below(3) : dataAddress(size: 1)
            piece = move(0, is32Bit ? address & 0xFFFF_FFFF : address)
            piece.bytes += [0xFF, 0xE0]
        default:
            // IRET to the same level.
            guard !is32Bit else { break }
            piece = ProgramPiece(bytes: [0x48, 0x89, 0xE1, 0x8C, 0xD0, 0x50, 0x51, 0x9C, 0x8C, 0xC8, 0x50])
            piece = joined(piece, move(0, addressOf: target))
            piece.bytes += [0x50, 0x48, 0xCF]
        }
        return piece
    }

    // MARK: Stack, flags, strings

    private mutating func stackPiece() -> ProgramPiece {
        let register = UInt8(below(is32Bit ? 8 : 16))
        let rex: [UInt8] = register > 7 ? [0x41] : []
        switch below(8) {
        case 0..<3: return ProgramPiece(bytes: rex + [0x50 | register & 7])
        case 3, 4: return register == 4 ? ProgramPiece(bytes: [0x54]) : ProgramPiece(bytes: rex + [0x58 | register & 7])
        case 5:
            var piece = ProgramPiece(bytes: [0x68])
            piece.word(next())
            return piece
        case 6: return ProgramPiece(bytes: [0x6A, UInt8(truncatingIfNeeded: next())])
        default: return move(4, stackAddress())
        }
    }

    private mutating func flags() -> ProgramPiece {
        switch below(6) {
        case 0: return ProgramPiece(bytes: [0x9C])
        case 1: return ProgramPiece(bytes: [0x9C, 0x9D])
        case 2, 3:
            var value = next() & 0xED5 | 2
            if chance(90) { value &= ~0x400 }
            if chance(10) { value |= 0x100 }
            if chance(10) { value |= 0x4000 }
            if chance(15) { value |= 0x4_0000 }
            if chance(30) { value |= below(4) << 12 }
            var piece = ProgramPiece(bytes: [0x68])
            piece.word(value)
            piece.bytes.append(0x9D)
            return piece
        case 4: return ProgramPiece(bytes: [chance(85) ? 0xFC : 0xFD])
        default: return ProgramPiece(bytes: [[0xF8, 0xF9, 0xF5, 0x9F, 0x9E][Int(below(5))]])
        }
    }

    private mutating func string() -> ProgramPiece {
        var piece = move(1, below(chance(90) ? 40 : 5000))
        piece = joined(piece, move(6, dataAddress(size: chance(50) ? 8 : 64)))
        piece = joined(piece, move(7, dataAddress(size: chance(50) ? 8 : 64)))
        if chance(40) { piece.bytes.append(chance(70) ? 0xFC : 0xFD) }
        if chance(80) { piece.bytes.append(chance(50) ? 0xF3 : 0xF2) }
        if chance(15) { piece.bytes.append(0x66) }
        if !is32Bit && chance(40) { piece.bytes.append(0x48) }
        piece.bytes.append([0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF][Int(below(10))])
        return piece
    }

    // MARK: Self-modification

    /// Something with an immediate, or an opcode, that may become another.
    private mutating func victim() -> ProgramPiece {
        let register = UInt8(below(8))
        var piece = ProgramPiece()
        switch register == 4 ? 3 : below(4) {
        case 0:
            piece.bytes = [0xB8 | register]
            piece.word(next())
            piece.victim = (1, 4)
        case 1:
            piece.bytes = [0x81, 0xC0 | UInt8(below(8)) << 3 | register]
            piece.word(next())
            piece.victim = (2, 4)
        case 2:
            piece.bytes = [0x83, 0xC0 | UInt8(below(8)) << 3 | register, UInt8(truncatingIfNeeded: next())]
            piece.victim = (2, 1)
        default:
            piece.bytes = [0x24, UInt8(truncatingIfNeeded: next())]
            piece.victim = (1, 1)
        }
        return piece
    }

    /// Stores into a victim, by its own address or through another window. One that follows later, stood earlier, or comes next.
    private mutating func selfModification() -> ProgramPiece {
        var candidates = program.pieces.indices.filter { program.pieces[$0].victim != nil }
        let isOwn = candidates.isEmpty || chance(50)
        let own = victim()
        let target: Int
        if isOwn {
            target = here
        } else {
            candidates.shuffle(using: &encoder.random)
            target = candidates[0]
        }
        let window =
            is32Bit || isUser
            ? chance(50) && program.window != ProgramLayout.edge ? ProgramLayout.low : ProgramLayout.alias
            : program.window == ProgramLayout.high && chance(60) ? ProgramLayout.high : ProgramLayout.alias
        let victimSize = isOwn ? own.victim.map(\.size) ?? 1 : program.pieces[target].victim.map(\.size) ?? 1
        let register = register()
        var piece = ProgramPiece()
        if !is32Bit { piece.bytes.append(0x48 | register >> 3) }
        piece.bytes.append(0xB8 | register & 7)
        piece.fix(.victim(target, window: window, plus: 0, isWide: !is32Bit))
        // mov byte or dword [register], imm: RBP and R13 need a displacement, RSP and R12 a SIB byte.
        let isWhole = victimSize == 4 && chance(60)
        if register > 7 { piece.bytes.append(0x41) }
        let base = register & 7
        piece.bytes += [isWhole ? 0xC7 : 0xC6, (base == 5 ? 0x40 : 0) | base]
        if base == 4 { piece.bytes.append(0x24) }
        if base == 5 { piece.bytes.append(0) }
        if isWhole { piece.word(next()) } else { piece.bytes.append(UInt8(truncatingIfNeeded: next())) }
        if isOwn {
            if chance(30) { piece.bytes.append(0x90) }
            piece = joined(piece, own)
        }
        return piece
    }

    // MARK: System

    private mutating func system() -> ProgramPiece {
        switch below(isUser ? 12 : 30) {
        case 0, 1: return ProgramPiece(bytes: is32Bit ? [0xCD, ProgramLayout.callVector] : [0x0F, 0x05])
        case 2: return ProgramPiece(bytes: [0xCD, chance(80) ? ProgramLayout.callVector : UInt8(below(64))])
        case 3: return ProgramPiece(bytes: [[0xCC, 0xF1, 0xF4][Int(below(3))]])
        case 4: return ProgramPiece(bytes: [0x0F, 0x0B])
        case 5:
            return ProgramPiece(bytes: [[0xE4, 0xE6, 0xE5, 0xE7][Int(below(4))], UInt8(truncatingIfNeeded: next())])
        case 6: return ProgramPiece(bytes: [chance(50) ? 0xFA : 0xFB])
        case 7: return ProgramPiece(bytes: [0x8C, 0xD0, 0x8E, [0xD0, 0xD8, 0xC0][Int(below(3))]])
        case 8 where !is32Bit:
            // WRFSBASE, WRGSBASE, RDFSBASE, RDGSBASE.
            let address = chance(70) ? below(0x2000) : dataAddress(size: 8)
            return joined(move(0, address), ProgramPiece(bytes: [0xF3, 0x48, 0x0F, 0xAE, 0xC0 | UInt8(below(4)) << 3]))
        case 9: return joined(move(1, 0), ProgramPiece(bytes: [0x0F, 0x01, 0xD0]))
        case 10: return ProgramPiece(bytes: [0x0F, 0xAE, [0xE8, 0xF0, 0xF8][Int(below(3))]])
        case 11: return ProgramPiece(bytes: [0xF3, 0x90])
        case 12, 13: return ProgramPiece(bytes: [0xFA])
        case 14..<18: return ProgramPiece(bytes: [0xFB])
        case 18: return ProgramPiece(bytes: chance(50) ? [0xFB, 0xFA] : [0xFB, 0x90, 0xFA])
        case 19: return ProgramPiece(bytes: [0xFB, 0xF4])
        case 20: return ProgramPiece(bytes: [0x0F, 0x01, 0xF8])
        case 21, 22: return ProgramPiece(bytes: [0x0F, 0x01, 0xCB])
        case 23: return ProgramPiece(bytes: [0x0F, 0x01, 0xCA])
        case 24:
            // INVLPG.
            return joined(move(0, dataAddress(size: 1)), ProgramPiece(bytes: [0x0F, 0x01, 0x38]))
        case 25:
            // MOV RAX, CR3; MOV CR3, RAX.
            return ProgramPiece(bytes: [0x0F, 0x20, 0xD8, 0x0F, 0x22, 0xD8])
        case 26, 27:
            let table = chance(60) ? ProgramLayout.otherPageMap : ProgramLayout.pageMap
            let pcid = program.setup.hasPCID ? below(3) | (chance(40) ? 1 << 63 : 0) : 0
            return joined(move(0, table | pcid), ProgramPiece(bytes: [0x0F, 0x22, 0xD8]))
        case 28:
            // CLTS, or CR0.TS set: MOV RAX, CR0; OR AL, 8; MOV CR0, RAX.
            return ProgramPiece(bytes: chance(60) ? [0x0F, 0x06] : [0x0F, 0x20, 0xC0, 0x0C, 8, 0x0F, 0x22, 0xC0])
        default:
            // WRMSR: FS.base, GS.base, KernelGSbase.
            var piece = move(0, chance(60) ? below(0x2000) : ProgramLayout.low + ProgramLayout.data)
            piece = joined(piece, move(2, 0))
            piece = joined(piece, move(1, 0xC000_0100 + below(3)))
            piece.bytes += [0x0F, 0x30]
            return piece
        }
    }
}

extension ProgramPiece {
    fileprivate mutating func setWord(_ value: UInt64, at place: Int, size: Int) {
        for i in 0..<size { bytes[place + i] = UInt8(truncatingIfNeeded: value >> UInt64(i * 8)) }
    }
}
