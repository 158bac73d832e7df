/// Conversion between nanoseconds of the machine's clock and ticks of a counter, exact and without overflow.
enum Frequency {
    static let nanosecondsPerSecond: UInt64 = 1_000_000_000

    /// Whole ticks of `frequency` (hertz, below 10^9) in `nanoseconds`.
    static func ticks(in nanoseconds: UInt64, at frequency: UInt64) -> UInt64 {
        nanosecondsPerSecond.dividingFullWidth(nanoseconds.multipliedFullWidth(by: frequency)).quotient
    }

    /// The nanosecond at which tick number `tick` of `frequency` (hertz) has come; the end of time if that is never.
    static func time(of tick: UInt64, at frequency: UInt64) -> UInt64 {
        let product = tick.multipliedFullWidth(by: nanosecondsPerSecond)
        guard product.high < frequency else { return UInt64.max }
        let (quotient, remainder) = frequency.dividingFullWidth(product)
        return remainder == 0 ? quotient : quotient.addingReportingOverflow(1).partialValue
    }
}
