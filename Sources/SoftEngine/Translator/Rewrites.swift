import CDavit

/// Where code is rewritten so often that translating it again and again costs more than it gains, as just-in-time compilers and
/// self-patching programs do: it is interpreted, without being cached, until it calms down.
struct Rewrites: BitwiseCopyable {
    /// Translations lost to writes, by 64-byte chunks of guest physical memory, many chunks to a counter.
    private var counts: InlineArray<4096, UInt8> = InlineArray(repeating: 0)
    /// A digest of what chunks held when they were last interpreted for it, and instructions since; many chunks to an entry.
    private var digests: InlineArray<1024, UInt64> = InlineArray(repeating: 0)
    private var sightings: InlineArray<1024, UInt8> = InlineArray(repeating: 0)
    /// When the counters were last halved, by the host's time-stamp counter.
    private var halved: UInt64 = 0
    private var isEmpty = true

    /// Losses that make a chunk one to interpret.
    private static let many: UInt8 = 24
    /// Instructions from a chunk that stays as it is after which a translation is worth another try: code that is rewritten, then run
    /// many times.
    private static let often: UInt8 = 16
    /// Cycles between two halvings: some tenths of a second.
    private static let period: UInt64 = 1 << 30

    @inline(__always)
    private static func index(_ physical: UInt64) -> Int {
        Int(truncatingIfNeeded: physical >> 6 ^ physical >> 18) & 4095
    }

    /// A translation of code at a guest physical address was lost.
    mutating func note(_ physical: UInt64) {
        let now = davit_rdtsc()
        if now &- halved > Self.period {
            for i in counts.indices { counts[i] >>= 1 }
            halved = now
        }
        let i = Self.index(physical)
        if counts[i] < UInt8.max { counts[i] += 1 }
        isEmpty = false
    }

    /// An instruction is about to be interpreted because its code is rewritten; `chunk` is where the 64 bytes around it stand. True if so
    /// many have come since these changed that they may be translated again.
    mutating func settles(at physical: UInt64, chunk: UnsafeRawPointer) -> Bool {
        var digest: UInt64 = 0
        for offset in stride(from: 0, to: 64, by: 8) {
            digest = (digest ^ chunk.load(fromByteOffset: offset, as: UInt64.self)) &* 0x9E37_79B9_7F4A_7C15
        }
        let i = Int(truncatingIfNeeded: physical >> 6 ^ physical >> 16) & 1023
        guard digests[i] == digest else {
            digests[i] = digest
            sightings[i] = 0
            return false
        }
        sightings[i] += 1
        guard sightings[i] >= Self.often else { return false }
        sightings[i] = 0
        counts[Self.index(physical)] = Self.many - 1
        return true
    }

    @inline(__always)
    func areMany(at physical: UInt64) -> Bool { !isEmpty && counts[Self.index(physical)] >= Self.many }
}
