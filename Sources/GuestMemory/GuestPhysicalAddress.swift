/// An address as the guest's devices and page tables use it, in bytes from the guest's physical zero.
public struct GuestPhysicalAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var rawValue: UInt64

    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    @inlinable
    public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

    /// The address `offset` bytes on, or nil past 2^64.
    @inlinable
    public func advanced(by offset: UInt64) -> Self? {
        let (sum, overflow) = rawValue.addingReportingOverflow(offset)
        return overflow ? nil : Self(sum)
    }

    public var description: String { "0x" + String(rawValue, radix: 16) }
}
