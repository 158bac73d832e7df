@testable import SoftEngine

/// A generator whose seed can be printed and given again (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}

/// Writes instructions that match a row of the opcode table, everything that the row leaves open chosen at random.
struct OpcodeSampler {
    let codeSize: UInt32
    var generator: SeededGenerator
    /// One in this many samples gets prefixes that its row does not ask for.
    var strayPrefixes = 4

    private typealias Key = OpcodePattern.Key

    /// 15 bytes that begin with an instance of `entry`; nil if it does not exist in this code size.
    mutating func sample(_ entry: OpcodeEntry) -> [UInt8]? {
        let pattern = entry.pattern
        let long = codeSize == 8
        guard pattern.mask & Key.long == 0 || (pattern.match & Key.long != 0) == long else { return nil }
        var random = UInt32(truncatingIfNeeded: generator.next())
        random = random & ~pattern.mask | pattern.match
        if !long && !pattern.isVEX && pattern.match & (Key.w | Key.rexB) != 0 { return nil }

        var bytes: [UInt8] = []
        if chance(strayPrefixes) {
            bytes.append([0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67].randomElement(using: &generator)!)
        }
        if pattern.isVEX {
            appendVEX(pattern, random, to: &bytes)
        } else {
            appendLegacy(pattern, random, to: &bytes)
        }
        if entry.rules.contains(.modrm) { bytes.append(modrm(pattern, random)) }
        while bytes.count < Instruction.maximumLength { bytes.append(UInt8(truncatingIfNeeded: generator.next())) }
        return Array(bytes.prefix(Instruction.maximumLength))
    }

    private mutating func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &generator) == 0 }

    private mutating func appendLegacy(_ pattern: OpcodePattern, _ random: UInt32, to bytes: inout [UInt8]) {
        let stray = chance(strayPrefixes)
        if pattern.mask & Key.p66 == 0 {
            if chance(3) { bytes.append(0x66) }
        } else if pattern.match & Key.p66 != 0 {
            bytes.append(0x66)
        }
        if pattern.match & Key.pF3 != 0 { bytes.append(0xF3) }
        if pattern.match & Key.pF2 != 0 { bytes.append(0xF2) }
        if stray { bytes.append([0xF0, 0xF2, 0xF3].randomElement(using: &generator)!) }
        if codeSize == 8 {
            var rex = UInt8(truncatingIfNeeded: random >> 20) & 0b0110
            if random & Key.w != 0 { rex |= 8 }
            if random & Key.rexB != 0 { rex |= 1 }
            if rex != 0 || chance(8) { bytes.append(0x40 | rex) }
        }
        switch pattern.map {
        case 1: bytes.append(0x0F)
        case 2: bytes += [0x0F, 0x38]
        case 3: bytes += [0x0F, 0x3A]
        default: break
        }
        bytes.append(pattern.opcode)
    }

    private mutating func appendVEX(_ pattern: OpcodePattern, _ random: UInt32, to bytes: inout [UInt8]) {
        let extensions = codeSize == 8 ? UInt8(truncatingIfNeeded: generator.next()) & 0xE0 : 0xE0
        var vvvv = UInt8(truncatingIfNeeded: generator.next()) & 15
        if pattern.mask & Key.vvvv != 0 { vvvv = 0 }
        if codeSize != 8 { vvvv &= 7 }
        var payload = ~vvvv << 3 & 0x78
        if random & Key.l != 0 { payload |= 4 }
        if pattern.match & Key.p66 != 0 { payload |= 1 }
        if pattern.match & Key.pF3 != 0 { payload |= 2 }
        if pattern.match & Key.pF2 != 0 { payload |= 3 }
        let w: UInt8 = random & Key.w != 0 ? 0x80 : 0
        if pattern.map == 1 && w == 0 && extensions & 0x60 == 0x60 && chance(2) {
            bytes += [0xC5, extensions & 0x80 | payload]
        } else {
            bytes += [0xC4, extensions | pattern.map, w | payload]
        }
        bytes.append(pattern.opcode)
    }

    private func modrm(_ pattern: OpcodePattern, _ random: UInt32) -> UInt8 {
        var byte = UInt8(truncatingIfNeeded: random)
        guard pattern.mask & Key.memory != 0 else { return byte }
        if pattern.match & Key.memory == 0 {
            byte |= 0xC0
        } else if byte >= 0xC0 {
            byte &= 0x3F | UInt8(truncatingIfNeeded: random >> 24) & 1 << 7
        }
        return byte
    }
}
