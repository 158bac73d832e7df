import CDavit

/// Where code is rewritten so often that translating it again and again costs more than it gains, as just-in-time compilers and
/// self-patching programs do: it is interpreted, without being cached, until it calms down.
struct Rewrites: BitwiseCopyable {
    /// Translations lost to writes, by 64-byte chunks of guest physical memory, many chunks to a counter.
    private var counts: InlineArray<4096, UInt8> = InlineArray(repeating: 0)
    /// When the counters were last halved, by the host's time-stamp counter.
    private var halved: UInt64 = 0
    private var isEmpty = true

    /// Losses that make a chunk one to interpret.
    private static let many: UInt8 = 24
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

    @inline(__always)
    func areMany(at physical: UInt64) -> Bool { !isEmpty && counts[Self.index(physical)] >= Self.many }
}
