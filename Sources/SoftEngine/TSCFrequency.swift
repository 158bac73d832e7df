import CDavit
import Glibc

/// How fast the host's time-stamp counter runs.
enum TSCFrequency {
    /// Cycles per second: from CPUID where the host says it exactly, else measured once, over at least 3 ms from `beginning`.
    static let host: UInt64 = fromCPUID() ?? measure()

    /// Both counters when somebody first asked.
    static let beginning = sample()

    /// Leaf 0x15 (Intel SDM vol. 2), or a hypervisor's leaf 0x40000010, in kHz.
    private static func fromCPUID() -> UInt64? {
        if CPUIDAnswer.host(0).eax >= 0x15 {
            let leaf = CPUIDAnswer.host(0x15)
            if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
                return UInt64(leaf.ecx) * UInt64(leaf.ebx) / UInt64(leaf.eax)
            }
        }
        guard CPUIDAnswer.host(1).ecx >> 31 & 1 != 0 else { return nil }
        let highest = CPUIDAnswer.host(0x4000_0000).eax
        guard highest >= 0x4000_0010, highest < 0x4001_0000 else { return nil }
        let kilohertz = CPUIDAnswer.host(0x4000_0010).eax
        return kilohertz > 0 ? UInt64(kilohertz) * 1000 : nil
    }

    private static func measure() -> UInt64 {
        let start = beginning
        var end = sample()
        while end.nanoseconds - start.nanoseconds < 3_000_000 { end = sample() }
        let (high, low) = (end.cycles &- start.cycles).multipliedFullWidth(by: 1_000_000_000)
        let elapsed = end.nanoseconds - start.nanoseconds
        guard high < elapsed else { return 1_000_000_000 }
        return elapsed.dividingFullWidth((high, low)).quotient
    }

    /// Both counters at one moment: the tightest of a few tries.
    private static func sample() -> (cycles: UInt64, nanoseconds: UInt64) {
        var best: (cycles: UInt64, nanoseconds: UInt64) = (0, 0)
        var shortest = UInt64.max
        for _ in 0..<8 {
            let before = davit_rdtsc()
            var time = timespec()
            clock_gettime(CLOCK_MONOTONIC, &time)
            let after = davit_rdtsc()
            if after &- before < shortest {
                shortest = after &- before
                best = (
                    before &+ (after &- before) / 2,
                    UInt64(bitPattern: Int64(time.tv_sec)) &* 1_000_000_000 &+ UInt64(bitPattern: Int64(time.tv_nsec))
                )
            }
        }
        return best
    }
}
