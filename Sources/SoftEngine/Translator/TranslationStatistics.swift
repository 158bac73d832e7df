import CDavit

/// Counters of one vCPU's translator, for `--stats`.
struct TranslationStatistics: BitwiseCopyable {
    /// Units made, the guest code that they cover and the host code that they are, in bytes.
    var units: UInt64 = 0
    var guestBytes: UInt64 = 0
    var hostBytes: UInt64 = 0
    /// Cycles of the time-stamp counter that making them took.
    var cycles: UInt64 = 0
    /// Times that units were forgotten because their code was overwritten, and that some were for want of room.
    var invalidations: UInt64 = 0
    var flushes: UInt64 = 0
    /// By `davit_leave`.
    var exits: InlineArray<8, UInt64> = InlineArray(repeating: 0)
}

extension TranslatedExecution {
    /// Why translated code was left, in the order of `davit_leave`.
    private static let causes = [
        "no translation at hand", "jump to link", "instruction for the interpreter", "indirect jump to learn",
        "read TLB miss",
        "write TLB miss", "window over a page's end to link", "host fault",
    ]

    /// Lines for `--stats`. `tscFrequency` is the host's, in Hz.
    func statisticsLines(tscFrequency: UInt64) -> [(name: String, value: String)] {
        let statistics = statistics
        var lines: [(name: String, value: String)] = [
            ("translated units", "\(statistics.units)"),
            ("translated bytes", "\(statistics.guestBytes) of guest code to \(statistics.hostBytes) of host code"),
            ("time in translation", "\(statistics.cycles / max(1, tscFrequency / 1_000_000)) us"),
            ("overwritten code", "\(statistics.invalidations)"),
            ("code memory reused", "\(statistics.flushes)"),
        ]
        for (i, cause) in Self.causes.enumerated() { lines.append(("exits, \(cause)", "\(statistics.exits[i])")) }
        let most = (0..<Operation.count).filter { interpreted[$0] > 0 }.sorted { interpreted[$0] > interpreted[$1] }
        let listed = most.prefix(16).compactMap { number in
            Operation(rawValue: UInt16(number)).map { "\($0) \(interpreted[number])" }
        }
        lines.append(("left to the interpreter", listed.joined(separator: ", ")))
        return lines
    }
}

extension Operation {
    /// One more than the highest raw value.
    static let count = Int(Operation.gather.rawValue) + 1
}
