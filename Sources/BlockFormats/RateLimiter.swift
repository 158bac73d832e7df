/// Two buckets that fill at the limits' pace, and hold what a tenth of a second gives: who wants more waits.
struct RateLimiter {
    private let limits: RateLimits
    /// Nanoseconds at which each bucket's debts are paid.
    private var operationsPaid: UInt64 = 0
    private var bytesPaid: UInt64 = 0

    private static let second: UInt64 = 1_000_000_000
    private static let burst = second / 10

    init(_ limits: RateLimits) { self.limits = limits }

    /// Takes a request's share and returns when it may begin, in nanoseconds of the same clock as `now`.
    mutating func admit(bytes: Int, now: UInt64) -> UInt64 {
        let start = max(
            Self.charge(1, of: limits.operations, &operationsPaid, now),
            Self.charge(UInt64(bytes), of: limits.bytes, &bytesPaid, now))
        return max(start, now)
    }

    private static func charge(_ amount: UInt64, of limit: UInt64, _ paid: inout UInt64, _ now: UInt64) -> UInt64 {
        guard limit > 0 else { return now }
        let start = max(paid, now > burst ? now - burst : 0)
        // `amount` is less than 2^31: the product fits. The sum of many need not.
        let (sum, isTooLarge) = start.addingReportingOverflow(amount * second / limit)
        paid = isTooLarge ? .max : sum
        // It may begin while the bucket holds anything.
        return start
    }
}
