import Glibc

extension GuestMemory {
    /// Gives the whole pages in `count` bytes at `address` back to the host: they read as zeros from then on, and take memory again when
    /// they are touched. False, and nothing, unless all of it is RAM and the host agrees.
    public func discard(at address: GuestPhysicalAddress, count: UInt64) -> Bool {
        let first = (address.rawValue &+ (Self.pageSize - 1)) & ~(Self.pageSize - 1)
        let skipped = first &- address.rawValue
        guard skipped < count else { return false }
        let whole = (count - skipped) & ~(Self.pageSize - 1)
        guard whole > 0, let place = pointer(at: GuestPhysicalAddress(first), count: whole) else { return false }
        // Safe: the pages are this object's own and stay mapped. Where they are shared it makes a hole in the memfd behind them.
        guard madvise(place, Int(whole), backing.isShared ? MADV_REMOVE : MADV_DONTNEED) == 0 else { return false }
        didWrite(at: GuestPhysicalAddress(first), count: whole)
        return true
    }
}
