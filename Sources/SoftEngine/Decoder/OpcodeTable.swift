/// The opcode table: every instruction that the engine knows, one row for each form (Intel SDM vol. 2, appendix A; AMD APM
/// vol. 3, appendix A). It is the one truth: the decoder looks up here, fuzzers and documents enumerate it. Left out, and
/// so undefined: EVEX, XOP, 3DNow!, VMX, SVM, SMX, TSX, CET, MPX.
///
/// Rows of one opcode form a chain that is searched in the order in which they were added.
struct OpcodeTable: Sendable {
    /// Safe to share: written while it is built, never after; lives as long as the program.
    nonisolated(unsafe) let entries: UnsafeBufferPointer<OpcodeEntry>
    /// Index of the first row of a chain by `chainIndex`; 0, the row of undefined opcodes, where there is none.
    nonisolated(unsafe) let heads: UnsafePointer<UInt16>

    static let shared = OpcodeTable()

    private init() {
        var builder = OpcodeTableBuilder()
        builder.addArithmetic()
        builder.addDataMovement()
        builder.addControlFlow()
        builder.addSystem()
        builder.addX87()
        builder.addPackedInteger()
        builder.addSSE()
        builder.addSSE4()
        builder.addAVX()
        entries = UnsafeBufferPointer(start: builder.entries, count: builder.count)
        heads = UnsafePointer(builder.heads)
    }

    /// Where an opcode's chain begins in `heads`.
    @inline(__always)
    static func chainIndex(vex: Bool, map: UInt8, opcode: UInt8) -> Int {
        (vex ? 1024 : 0) | Int(map & 3) << 8 | Int(opcode)
    }

    /// The x87 escapes D8-DF have a chain for each ModRM.reg, for memory and for registers: all their rows tell these apart.
    @inline(__always)
    static func x87ChainIndex(opcode: UInt8, modrm: UInt8, isMemory: Bool) -> Int {
        2048 | Int(opcode & 7) << 4 | (isMemory ? 8 : 0) | Int(modrm >> 3 & 7)
    }

    @inline(__always)
    static func isX87(map: UInt8, opcode: UInt8) -> Bool { map == 0 && opcode & 0xF8 == 0xD8 }

    static let chainCount = 2048 + 128
}

/// Takes the rows as they are written down and links them.
struct OpcodeTableBuilder: ~Copyable {
    let entries: UnsafeMutablePointer<OpcodeEntry>
    let heads: UnsafeMutablePointer<UInt16>
    private let tails: UnsafeMutablePointer<UInt16>
    private(set) var count = 0
    /// Of the rows to come.
    var group = OpcodeGroup.arithmetic

    private static let capacity = 2560

    init() {
        entries = .allocate(capacity: Self.capacity)
        heads = .allocate(capacity: OpcodeTable.chainCount)
        tails = .allocate(capacity: OpcodeTable.chainCount)
        heads.initialize(repeating: 0, count: OpcodeTable.chainCount)
        tails.initialize(repeating: 0, count: OpcodeTable.chainCount)
        // Row 0 matches everything, so that a search always ends.
        entries.initialize(
            to: OpcodeEntry(
                pattern: .one(0), nameBytes: Self.bytes("(bad)"), operation: .invalid, form: .none, size: .none,
                immediate: .none, rules: [], shape: VectorShape(), feature: .base, group: .software))
        count = 1
    }

    deinit { tails.deallocate() }

    private static func bytes(_ name: StaticString) -> UnsafePointer<CChar> {
        UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    }

    private static func chainIndex(of pattern: OpcodePattern) -> Int {
        guard !pattern.isVEX, OpcodeTable.isX87(map: pattern.map, opcode: pattern.opcode) else {
            return OpcodeTable.chainIndex(vex: pattern.isVEX, map: pattern.map, opcode: pattern.opcode)
        }
        return OpcodeTable.x87ChainIndex(
            opcode: pattern.opcode, modrm: UInt8(truncatingIfNeeded: pattern.match),
            isMemory: pattern.match & OpcodePattern.Key.memory != 0)
    }

    mutating func add(
        _ pattern: OpcodePattern, _ name: StaticString, _ operation: Operation, _ form: OperandForm = .none,
        _ size: OperandSizeRule = .none, _ immediate: ImmediateKind = .none, _ rules: OpcodeEntry.Rules = [],
        shape: VectorShape = VectorShape(), feature: InstructionFeature = .base
    ) {
        precondition(count < Self.capacity, "OpcodeTableBuilder.capacity is too small")
        let index = UInt16(count)
        (entries + count).initialize(
            to: OpcodeEntry(
                pattern: pattern, nameBytes: Self.bytes(name), operation: operation, form: form, size: size,
                immediate: immediate, rules: rules, shape: shape, feature: feature, group: group))
        count += 1
        let chain = Self.chainIndex(of: pattern)
        if heads[chain] == 0 {
            heads[chain] = index
        } else {
            entries[Int(tails[chain])].next = index
        }
        tails[chain] = index
    }
}
