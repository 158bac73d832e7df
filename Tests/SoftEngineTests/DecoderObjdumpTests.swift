import Testing

@testable import SoftEngine

/// The decoder against GNU objdump: length and mnemonic of every row of the table and of random bytes, in every code size.
/// A failure prints the seed and the bytes; the lists below name what the two are known to see differently.
@Suite struct DecoderObjdumpTests {
    private static let codeSizes: [UInt32] = [8, 4, 2]

    @Test(arguments: codeSizes)
    func everyRowOfTheTable(codeSize: UInt32) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var sampler = OpcodeSampler(codeSize: codeSize, generator: SeededGenerator(seed: seed))
        var cases: [[UInt8]] = []
        for entry in OpcodeTable.shared.entries.dropFirst() {
            for _ in 0..<3 {
                if let bytes = sampler.sample(entry) { cases.append(bytes) }
            }
        }
        try compare(cases, codeSize: codeSize, seed: seed)
    }

    @Test(arguments: codeSizes)
    func everyOpcodeWithEveryPrefix(codeSize: UInt32) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        let prefixes: [[UInt8]] = [[], [0x66], [0xF3], [0xF2], [0x66, 0xF2], [0x67]]
        let escapes: [[UInt8]] = [[], [0x0F], [0x0F, 0x38], [0x0F, 0x3A]]
        var cases: [[UInt8]] = []
        for prefix in prefixes {
            for escape in escapes {
                for opcode in UInt8(0)...255 {
                    let rex = codeSize == 8 && Bool.random(using: &generator) ? [0x40 | generator.byte() & 15] : []
                    let tail = (0..<15).map { _ in generator.byte() }
                    cases.append(Array((prefix + rex + escape + [opcode] + tail).prefix(15)))
                }
            }
        }
        try compare(cases, codeSize: codeSize, seed: seed)
    }

    @Test(arguments: codeSizes)
    func randomBytes(codeSize: UInt32) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        try compare((0..<3000).map { _ in (0..<15).map { _ in generator.byte() } }, codeSize: codeSize, seed: seed)
    }

    private func compare(_ cases: [[UInt8]], codeSize: UInt32, seed: UInt64) throws {
        let decoder = Decoder(features: .all, behaviour: .amd)
        let lines = try Objdump.disassemble(cases, codeSize: codeSize)
        print("objdump, \(codeSize * 8)-bit code: \(cases.count) cases, seed \(seed)")
        for (bytes, line) in zip(cases, lines) {
            let mine = Decoded(bytes, codeSize: codeSize, decoder: decoder)
            if let complaint = mine.disagreement(with: line) {
                Issue.record(
                    """
                    \(complaint): \(mine.hex) is \(mine.name) of \(mine.length) bytes, \
                    for objdump \(line.text)of \(line.length); \(codeSize * 8)-bit code, seed \(seed)
                    """)
            }
        }
    }
}

extension SeededGenerator {
    fileprivate mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next()) }
}

/// The decoder's answer to one case.
private struct Decoded {
    let bytes: [UInt8]
    let outcome: DecodeOutcome
    let instruction: Instruction
    let name: String

    var length: Int { Int(instruction.length) }
    var isInvalid: Bool { instruction.operation == .invalid }
    var hex: String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ") }

    init(_ bytes: [UInt8], codeSize: UInt32, decoder: Decoder) {
        var instruction = Instruction()
        outcome = bytes.withUnsafeBufferPointer {
            decoder.decode($0.baseAddress!, available: $0.count, codeSize: codeSize, into: &instruction)
        }
        self.bytes = bytes
        self.instruction = instruction
        let entry = decoder.entry(of: instruction).pointee
        switch instruction.operation {
        case .jcc, .setcc, .cmov:
            let conditions = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]
            name = entry.name + conditions[Int(instruction.opcode & 15)]
        default: name = instruction.operation == .invalid ? "(bad)" : entry.name
        }
    }

    /// Nil if both see the same, or differ in a way that is known.
    func disagreement(with line: Objdump.Line) -> String? {
        // objdump does not count to 15, and takes FWAIT for a prefix.
        if outcome == .tooLong || line.isSplit || instruction.operation == .fwait { return nil }
        let isBad = line.mnemonic == "(bad)" || line.text.contains("(bad)")
        if isInvalid {
            return isBad || isKnownToObjdumpOnly(line) ? nil : "undefined only here"
        }
        if isBad { return isUnknownToObjdump ? nil : "undefined only to objdump" }
        if line.length != length { return "lengths differ" }
        return isSameMnemonic(line.mnemonic) ? nil : "mnemonics differ"
    }

    private func isSameMnemonic(_ other: String) -> Bool {
        if other == name || Self.aliases[name]?.contains(other) == true { return true }
        // Sizes that Intel's syntax shows in an operand or not at all.
        for suffix in ["64", "q", "w", "d"] where other == name + suffix { return true }
        // Predicates that objdump makes part of the name.
        for family in ["cmp", "vcmp", "pcl", "vpcl"] where name.hasPrefix(family) && other.hasPrefix(family) {
            return other.hasSuffix(name.suffix(2))
        }
        // MPX, CLDEMOTE, ENDBR and RDSSP live in the space of the hint NOPs.
        return instruction.operation == .nop && instruction.map == 1
    }

    /// Undefined here, and rightly so: checked against CPUs, or not carried.
    private func isKnownToObjdumpOnly(_ line: Objdump.Line) -> Bool {
        let registerMoves: Set<UInt8> = [0x20, 0x21, 0x22, 0x23, 0x24, 0x26, 0x8C, 0x8E]
        if line.mnemonic == "mov" { return registerMoves.contains(instruction.opcode) || hasLock }
        return hasLock || isForeignEncoding || instruction.prefixes.contains(.vex) && hasForbiddenPrefix
            || Self.notCarried.contains(line.mnemonic)
            || Self.strictOnCPUs.contains(line.mnemonic)
    }

    /// objdump does not know where LOCK is allowed.
    private var hasLock: Bool { instruction.prefixes.contains(.lock) }

    /// No legacy prefix but for segment and address size, and no REX goes before VEX.
    private var hasForbiddenPrefix: Bool {
        let vex = bytes.firstIndex { $0 == 0xC4 || $0 == 0xC5 } ?? 0
        return bytes[..<vex].contains { [0x66, 0xF2, 0xF3].contains($0) || $0 & 0xF0 == 0x40 }
    }

    /// EVEX, XOP, 3DNow!, VIA's PadLock, and VEX opcodes of AVX-512's mask registers, FMA4, AMX and later extensions.
    private var isForeignEncoding: Bool {
        if instruction.prefixes.contains(.vex) {
            let chain = OpcodeTable.chainIndex(vex: true, map: instruction.map, opcode: instruction.opcode)
            return OpcodeTable.shared.heads[chain] == 0
        }
        if instruction.map == 1 { return [0x0F, 0xA6, 0xA7].contains(instruction.opcode) }
        return instruction.map == 0 && [0x62, 0x8F].contains(instruction.opcode)
    }

    /// Defined here, and rightly so: aliases that CPUs carry out, fences with any ModRM.rm, hint NOPs of any form.
    private var isUnknownToObjdump: Bool {
        let operations: Set<Operation> = [.salc, .fence, .nop, .bsf, .bsr, .wbinvd, .vmmcall, .vmcall]
        let x87: Set<String> = ["fcom2", "fcomp3", "fcomp5", "fstp1", "fstp8", "fstp9", "fxch4", "fxch7"]
        return operations.contains(instruction.operation) || x87.contains(name)
    }

    private static let aliases: [String: Set<String>] = [
        "mov": ["movabs"], "nop": ["xchg"], "xchg": ["pause", "nop"], "cbw": ["cwde", "cdqe"], "cwd": ["cdq", "cqo"],
        "jcxz": ["jecxz", "jrcxz"], "prefetch": ["prefetcht0", "prefetcht1", "prefetcht2", "prefetchnta"],
        "prefetchw": ["prefetch", "prefetchwt1"], "fneni": ["fneni(8087"], "fndisi": ["fndisi(8087"],
        "fnsetpm": ["fnsetpm(287"], "movd": ["movq"], "vmovd": ["vmovq"], "pinsrd": ["pinsrq"], "vpinsrd": ["vpinsrq"],
        "pextrd": ["pextrq"], "vpextrd": ["vpextrq"], "wbinvd": ["wbnoinvd"], "vmmcall": ["vmgexit"],
    ]

    /// Instructions that objdump takes with prefixes, in modes, or with a ModRM.reg (EXTRQ) or VEX.W (VPINSRD, VPEXTRD in 32-bit
    /// code) that make them undefined on CPUs.
    private static let strictOnCPUs: Set<String> = [
        "pmovmskb", "fxsave", "fxsave64", "fxrstor", "fxrstor64", "ldmxcsr", "stmxcsr", "xsave", "xsave64", "xrstor",
        "xrstor64", "xsaveopt", "xsaveopt64", "xsavec", "xsavec64", "xsaves", "xsaves64", "xrstors", "xrstors64",
        "sfence",
        "clac", "stac", "extrq", "vzeroupper", "vzeroall", "swapgs", "rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase",
        "xgetbv", "xsetbv", "clzero",
        "vpinsrd", "vpextrd",
    ]

    private static let notCarried: Set<String> = [
        "rsm", "getsec", "femms", "frstpm(287", "ptwrite", "movdiri", "movdir64b", "enqcmd", "enqcmds", "umonitor",
        "umwait",
        "tpause",
        "serialize", "rdpru", "mcommit", "monitorx", "mwaitx", "rdpkru", "wrpkru", "hreset", "pconfig", "encls",
        "enclu", "enclv",
        "xbegin", "xbeginw", "xbegind", "xabort", "xend", "xtest", "xsusldtrk", "xresldtrk", "aadd", "aand", "aor",
        "axor",
        "vmread", "vmwrite", "vmptrld", "vmptrst", "vmclear", "vmxon", "vmxoff", "vmlaunch", "vmresume", "vmfunc",
        "invept",
        "invvpid", "vmrun", "vmload", "vmsave", "stgi", "clgi", "skinit", "invlpga", "invlpgb", "tlbsync", "pvalidate",
        "psmash",
        "rmpupdate", "rmpadjust", "seamcall", "seamret", "seamops", "tdcall", "uiret", "testui", "clui", "stui",
        "senduipi",
        "wrssd", "wrssq", "wrussd", "wrussq", "incsspd", "incsspq", "saveprevssp", "rstorssp", "setssbsy", "clrssbsy",
        "aesenc128kl", "aesenc256kl", "aesdec128kl", "aesdec256kl", "aesencwide128kl", "aesencwide256kl",
        "aesdecwide128kl", "aesdecwide256kl", "encodekey128", "encodekey256", "loadiwkey", "rdmsrlist", "wrmsrlist",
        "wrmsrns",
    ]
}
