/// How a disk is to be used.
public struct DiskOptions: Sendable {
    /// Nil: name and content decide, where they agree.
    public var format: DiskFormat?
    public var isReadOnly = false
    public var cache = CacheMode.writeback
    /// Whether an image may name another that is read underneath. Whoever wrote the image then chooses which of the user's files its
    /// guest reads.
    public var followsBackingFiles = false
    /// Reads this snapshot of a qcow2 image, by name or number, instead of the disk's present state.
    public var snapshot: String?
    public var limits = RateLimits()
    /// Whether the host's io_uring is used where there is one.
    public var usesRing = true

    public init() {}
}

/// How much may be asked of a disk in a second; 0 for as much as it gives.
public struct RateLimits: Equatable, Sendable {
    /// Reads, writes and flushes.
    public var operations: UInt64 = 0
    /// Bytes that are read and written.
    public var bytes: UInt64 = 0

    public init() {}
}
