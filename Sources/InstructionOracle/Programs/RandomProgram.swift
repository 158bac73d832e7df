import CDavit
import SoftEngine

/// A piece of a program: an instruction with what prepares its operands, or a few that belong together. Control enters it at its beginning,
/// faults and interrupts aside.
struct ProgramPiece {
    var bytes: [UInt8] = []
    var fixups: [Fixup] = []
    /// Where an immediate stands that other pieces may overwrite: offset and size.
    var victim: (offset: Int, size: Int)?

    /// A place whose content depends on where things come to lie.
    struct Fixup {
        enum Kind {
            /// Distance from the end of the fix-up to a piece, 8 or 32 bits.
            case relative8(Int)
            case relative32(Int)
            /// Linear address of a piece, 32 or 64 bits.
            case address32(Int)
            case address64(Int)
            /// Distance from `end` (an offset in the piece) to a linear address, 32 bits.
            case distance(UInt64, end: Int)
            /// Linear address, by the window at `window`, of the victim of a piece, 32 or 64 bits; `plus` more.
            case victim(Int, window: UInt64, plus: UInt64, isWide: Bool)
        }
        var offset: Int
        var kind: Kind
    }

    mutating func word(_ value: UInt64) {
        for i in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(i * 8))) }
    }
    mutating func quad(_ value: UInt64) {
        for i in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(i * 8))) }
    }

    /// Room for a fix-up.
    mutating func fix(_ kind: Fixup.Kind) {
        fixups.append(Fixup(offset: bytes.count, kind: kind))
        switch kind {
        case .relative8: bytes.append(0)
        case .address64, .victim(_, _, _, isWide: true): quad(0)
        default: word(0)
        }
    }
}

/// A program, the state in which it starts, and what surrounds it.
struct RandomProgram {
    var setup = ProgramBench.Setup()
    /// Where pieces stand: low or high window, or the edge of the canonical hole.
    var window = ProgramLayout.low
    /// From the beginning of the code pages, in bytes.
    var offset: UInt64 = 0
    var pieces: [ProgramPiece] = []
    /// Pieces at which control goes on after each exception.
    var resumes: [Int] = []
    var registers: [UInt64] = []
    var flags: UInt64 = 0
    var extendedState: [UInt8] = []
    var kinds: [ProgramLayout.PageKind] = []
    var usesInterruptStack = true
    /// Of the content of data, of page tables' flags, and of what surrounds the program.
    var contentSeed: UInt64 = 0
    var fuel: UInt32 = 20

    /// Guest physical address of each piece, and of what follows the last.
    var places: [UInt64] {
        var place = ProgramLayout.code + offset
        return pieces.map { piece in
            defer { place += UInt64(piece.bytes.count) }
            return place
        } + [place + 0]
    }

    var start: UInt64 { window &+ ProgramLayout.code &+ offset }

    /// Code that a piece's linear address is in.
    private func linear(_ physical: UInt64) -> UInt64 {
        window == ProgramLayout.edge ? window &+ (physical &- ProgramLayout.code &- 0x3000) : window &+ physical
    }

    /// The program's bytes with all fix-ups done.
    func assembled() -> [UInt8] {
        let places = self.places
        var code: [UInt8] = []
        for (i, piece) in pieces.enumerated() {
            var bytes = piece.bytes
            for fixup in piece.fixups {
                func set(_ value: UInt64, _ size: Int) {
                    for k in 0..<size { bytes[fixup.offset + k] = UInt8(truncatingIfNeeded: value >> UInt64(k * 8)) }
                }
                let here = places[i] &+ UInt64(fixup.offset)
                switch fixup.kind {
                case .relative8(let target): set(places[target] &- here &- 1, 1)
                case .relative32(let target): set(places[target] &- here &- 4, 4)
                case .address32(let target): set(linear(places[target]), 4)
                case .address64(let target): set(linear(places[target]), 8)
                case .distance(let address, let end): set(address &- linear(places[i]) &- UInt64(end), 4)
                case .victim(let target, let window, let plus, let isWide):
                    let offset = pieces[target].victim?.offset ?? 0
                    set(window &+ places[target] &+ UInt64(offset) &+ plus, isWide ? 8 : 4)
                }
            }
            code += bytes
        }
        return code
    }

    /// Fills RAM and registers of a bench.
    func load(into bench: ProgramBench) {
        var random = RandomSource(seed: contentSeed)
        let ram = bench.ram
        ram.initializeMemory(as: UInt8.self, repeating: 0, count: Int(ProgramLayout.data))
        for at in stride(from: Int(ProgramLayout.data), to: Int(ProgramLayout.ramSize), by: 8) {
            ram.storeBytes(of: OperandValues.lane(&random), toByteOffset: at, as: UInt64.self)
        }
        ProgramLayout.fill(
            ram, kinds: kinds, usesInterruptStack: usesInterruptStack, isGlobal: setup.hasGlobalPages, random: &random)
        ram.storeBytes(of: fuel, toByteOffset: Int(ProgramLayout.fuel), as: UInt32.self)

        let code = assembled()
        let filler: UInt8 = random.chance(50) ? 0x90 : 0xCC
        (ram + Int(ProgramLayout.code)).initializeMemory(
            as: UInt8.self, repeating: filler, count: Int(ProgramLayout.codeSize))
        code.withUnsafeBytes { bytes in
            (ram + Int(ProgramLayout.code + offset)).copyMemory(
                from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
        }
        (ram + Int(ProgramLayout.codeCopy)).copyMemory(
            from: ram + Int(ProgramLayout.code), byteCount: Int(ProgramLayout.codeSize))
        let places = self.places
        for (i, piece) in pieces.enumerated() {
            guard let victim = piece.victim else { continue }
            let place = ProgramLayout.codeCopy - ProgramLayout.code + places[i] + UInt64(victim.offset)
            for k in 0..<victim.size {
                ram.storeBytes(
                    of: UInt8(truncatingIfNeeded: random.next()), toByteOffset: Int(place) + k, as: UInt8.self)
            }
        }
        for (i, piece) in resumes.enumerated() {
            ram.storeBytes(
                of: linear(places[piece]), toByteOffset: Int(ProgramLayout.resumeTable) + (i + 1) * 8, as: UInt64.self)
        }

        let cpu = bench.cpu
        for i in 0..<16 { davit_cpu_gpr(cpu)[i] = registers[i] }
        cpu.pointee.rip = window == ProgramLayout.edge ? linear(ProgramLayout.code &+ offset) : start
        cpu.pointee.rflags = flags
        extendedState.withUnsafeBytes { bytes in
            UnsafeMutableRawPointer(davit_cpu_xsave(cpu)).copyMemory(
                from: bytes.baseAddress.unsafelyUnwrapped, byteCount: bytes.count)
        }
        bench.reset(setup)
    }
}
