import COracle
import SoftEngine

/// Makes random programs of every group of instructions that has no business with the machine around the CPU, with branches of every
/// kind, system calls, exceptions, and stores into the program itself.
struct ProgramGenerator {
    typealias Row = InstructionCatalog.Row

    /// For operands and encodings.
    var encoder: CaseGenerator
    let bench: InstructionBench
    /// Rows by group, in the order of the opcode table.
    let groups: [[Row]]
    var program = RandomProgram()
    /// Pieces that the main part and all functions have together.
    var pieceCount = 0
    var functionStarts: [Int] = []

    init(bench: InstructionBench) {
        self.bench = bench
        encoder = CaseGenerator(random: RandomSource(seed: 0), bench: bench)
        let others: Set<String> = [
            "system", "far transfer", "software interrupt", "segment", "port I/O", "branch", "decimal",
            "extended state",
        ]
        var groups: [String: [Row]] = [:]
        var order: [String] = []
        for row in InstructionCatalog.rows(bench)
        where row.fitness == .comparable && !row.leeway.contains(.stateArea) && !row.isFarPointer
            && !others.contains(row.group)
        {
            if groups[row.group] == nil { order.append(row.group) }
            groups[row.group, default: []].append(row)
        }
        self.groups = order.map { groups[$0] ?? [] }
    }

    var is32Bit: Bool { program.setup.is32Bit }
    var isUser: Bool { program.setup.isUser }

    mutating func below(_ bound: UInt64) -> UInt64 { encoder.random.below(bound) }
    mutating func chance(_ percent: UInt64) -> Bool { encoder.random.chance(percent) }
    mutating func next() -> UInt64 { encoder.random.next() }

    /// A program that follows from the seed and the number of the attempt. `code` stands for all pieces, if there is any.
    mutating func make(seed: UInt64, attempt: UInt64, code: [UInt8] = []) -> RandomProgram {
        encoder.random = RandomSource(seed: seed &+ attempt &* 0xD1B5_4A32_D192_ED03)
        program = RandomProgram()
        program.contentSeed = next()
        fillSetup(is64Bit: !code.isEmpty)
        encoder.mode = is32Bit ? .flat32 : .long64
        fillState()
        if !code.isEmpty {
            program.pieces = [ProgramPiece(bytes: code), end()]
            program.resumes = Array(repeating: 1, count: ProgramLayout.mostExceptions)
            place()
            return program
        }

        let mainCount = Int(3 + below(20))
        functionStarts = []
        var lengths = [mainCount]
        var total = mainCount + 1
        for _ in 0..<below(4) {
            functionStarts.append(total)
            let length = Int(1 + below(4))
            lengths.append(length)
            total += length + 1
        }
        pieceCount = total
        program.resumes = (0..<ProgramLayout.mostExceptions).map { i in
            let least = UInt64(i) * UInt64(mainCount) / UInt64(ProgramLayout.mostExceptions)
            return Int(chance(80) ? least + below(UInt64(mainCount) - least + 1) : below(UInt64(mainCount) + 1))
        }
        for (number, length) in lengths.enumerated() {
            for _ in 0..<length { program.pieces.append(piece()) }
            program.pieces.append(number == 0 ? end() : ret())
        }
        place()
        return program
    }

    private mutating func fillSetup(is64Bit: Bool) {
        let kind = below(100)
        program.setup.isUser = kind < 60
        program.setup.is32Bit = !is64Bit && (kind < 15 || kind >= 95)
        program.setup.hasSMAP = chance(50)
        program.setup.hasSMEP = chance(30)
        program.setup.hasPCID = chance(50)
        program.setup.hasGlobalPages = chance(50)
        program.setup.isTaskSwitched = chance(4)
        program.setup.pageTable = ProgramLayout.pageMap | (program.setup.hasPCID ? 1 : 0)
        let high = ProgramLayout.high
        program.setup.gdt = high + ProgramLayout.gdt
        program.setup.idt = high + ProgramLayout.idt
        program.setup.tss = high + ProgramLayout.tss
        program.setup.systemCall = ProgramHandlers.systemCall
        program.setup.systemCallFlagMask = chance(80) ? 0x4_7700 : next() & 0x4_7FD5 | 0x100
        program.setup.kernelGSBase = high + ProgramLayout.kernelGS
        program.setup.fsBase = chance(70) ? below(0x2000) : ProgramLayout.low + ProgramLayout.data
        program.setup.gsBase = chance(70) ? below(0x2000) : ProgramLayout.low + ProgramLayout.data
        program.usesInterruptStack = chance(isUser ? 30 : 70)
        program.window =
            is32Bit
            ? ProgramLayout.low
            : isUser ? (chance(5) ? ProgramLayout.edge : ProgramLayout.low) : chance(75) ? high : ProgramLayout.low
        if !isUser && program.window == ProgramLayout.low { program.setup.hasSMEP = false }
        program.fuel = UInt32(below(24))
    }

    private mutating func fillState() {
        program.kinds = (0..<ProgramLayout.dataPages).map { i in
            i < 5 || chance(25) ? .plain : ProgramLayout.PageKind.allCases[Int(below(8))]
        }
        // Shuffled, so that every kind meets every other at an edge.
        program.kinds.shuffle(using: &encoder.random)
        program.registers = (0..<16).map { _ in
            chance(40) ? dataAddress(size: 8) : OperandValues.register(&encoder.random)
        }
        program.registers[4] = stackAddress()
        if is32Bit { for i in 0..<16 { program.registers[i] = i < 8 ? program.registers[i] & 0xFFFF_FFFF : 0 } }
        program.flags = 2 | next() & 0x8D5 | (chance(75) ? 0x200 : 0) | (chance(10) ? 0x400 : 0)
        if chance(3) { program.flags |= 1 << 18 }
        if chance(10) { program.flags |= below(4) << 12 }
        if chance(2) { program.flags |= 0x100 }
        let area = UnsafeMutablePointer<UInt8>.allocate(capacity: Int(ORACLE_XSAVE_SIZE))
        defer { area.deallocate() }
        area.initialize(repeating: 0, count: Int(ORACLE_XSAVE_SIZE))
        encoder.fillExtendedState(area, isVector: true)
        program.extendedState = Array(UnsafeBufferPointer(start: area, count: Int(ORACLE_XSAVE_SIZE)))
    }

    /// Chooses where the program stands: often across the edge of a page or of a chunk.
    private mutating func place() {
        let size = UInt64(program.pieces.reduce(0) { $0 + $1.bytes.count })
        let room = ProgramLayout.codeSize - size
        if program.window == ProgramLayout.edge {
            program.offset = 0x3000 + below(max(1, 0x1000 - min(size, 0xFFF)))
            if chance(30) { program.offset = 0x4000 - size }
            program.offset = max(0x3000, min(program.offset, room))
        } else if chance(50) {
            let edge = 0x1000 * (1 + below(3))
            program.offset = min(room, edge - below(min(size, 0xFFF) + 1))
        } else {
            program.offset = below(room)
        }
    }

    // MARK: Addresses

    mutating func stackAddress() -> UInt64 {
        let window = isUser || program.window == ProgramLayout.low ? ProgramLayout.low : ProgramLayout.high
        let base = window &+ ProgramLayout.stack
        switch below(20) {
        case 0: return base &+ 0x1000 &- below(32)
        case 1: return base &+ below(64)
        case 2: return base &+ ProgramLayout.stackSize &- below(128)
        default: return base &+ 0x800 &+ below(0x1000) & ~7
        }
    }

    /// A linear address for `size` bytes of data: inside pages, at their edges, and where nothing is.
    mutating func dataAddress(size: UInt64) -> UInt64 {
        var window = ProgramLayout.low
        switch below(100) {
        case 0..<8: window = ProgramLayout.alias
        case 8..<14: window = ProgramLayout.large
        case 14..<(isUser ? 17 : program.window == ProgramLayout.high ? 70 : 30):
            window = is32Bit ? ProgramLayout.low : ProgramLayout.high
        default: break
        }
        let alignment = chance(70) ? max(size & (0 &- size), 1) : 1
        let data = ProgramLayout.data
        let page = below(UInt64(ProgramLayout.dataPages))
        switch below(100) {
        case 0..<65:
            // A page that allows everything.
            var plain = Int(page)
            while program.kinds[plain] != .plain { plain = (plain + 1) % program.kinds.count }
            let offset = below(0x1000 - min(size, 0xFFF))
            return window &+ data &+ UInt64(plain) << 12 &+ (offset - offset % alignment)
        case 65..<80: return window &+ data &+ page << 12 &- below(size + 1)
        case 80..<92:
            let offset = below(0x1000 - min(size, 0xFFF))
            return window &+ data &+ page << 12 &+ (offset - offset % alignment)
        case 92..<95: return window &+ ProgramLayout.stack &+ below(ProgramLayout.stackSize)
        case 95..<97: return program.window &+ ProgramLayout.code &+ below(ProgramLayout.codeSize)
        case 97: return is32Bit ? 0xFFFF_FFFF - below(16) : 0x8000_0000_0000 &- below(size + 1)
        case 98: return ProgramLayout.large &+ below(0x10_0000)
        default: return next()
        }
    }
}
