/// Sizes in bytes as people write them.
public enum ByteCount {
    /// Reads `512M`, `2G`, `4096KiB` or a bare number, which counts `bareUnit` bytes. Suffixes are powers of 1024: K M G T, alone or as
    /// KB or KiB, in either case; B is bytes. Nil if it is nothing of the kind or does not fit 64 bits.
    public static func parse(_ text: String, bareUnit: UInt64 = 1 << 20) -> UInt64? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { return nil }
        let unit: UInt64
        switch text.dropFirst(digits.count).lowercased() {
        case "": unit = bareUnit
        case "b": unit = 1
        case "k", "kb", "kib": unit = 1 << 10
        case "m", "mb", "mib": unit = 1 << 20
        case "g", "gb", "gib": unit = 1 << 30
        case "t", "tb", "tib": unit = 1 << 40
        default: return nil
        }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: unit)
        return overflow ? nil : bytes
    }

    /// In the largest unit that divides it: `512 MiB`, `3 GiB`, `1000 bytes`.
    public static func describe(_ bytes: UInt64) -> String {
        for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] as [(UInt64, String)]
        where bytes >= 1 << shift && bytes % (1 << shift) == 0 {
            return "\(bytes >> shift) \(unit)"
        }
        return "\(bytes) bytes"
    }
}
