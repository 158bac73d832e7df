/// What a page translation allows: bits beside a page's physical address, all below 2^12.
enum PageRights {
    static let user: UInt64 = 1 << 0
    static let writable: UInt64 = 1 << 1
    static let noExecute: UInt64 = 1 << 2
    static let global: UInt64 = 1 << 3
    /// The dirty bit is set in guest memory: a store needs no walk.
    static let dirty: UInt64 = 1 << 4
    /// Part of a page of 2 or 4 MiB.
    static let large: UInt64 = 1 << 5
    /// Part of a page of 1 GiB.
    static let huge: UInt64 = 1 << 6
    /// All of the above.
    static let mask: UInt64 = 0xFFF
}

/// Why memory is accessed: it decides which rights are asked for.
enum AccessKind {
    case read
    case write
    case fetch
}

/// Second-level TLB entry: one 4 KiB page of one address space.
struct TranslationEntry: BitwiseCopyable {
    /// Linear page address with the PCID in its low 12 bits; 0 there for global pages.
    var tag: UInt64
    /// Physical page address with `PageRights`.
    var translation: UInt64
    /// The generation of its PCID, or that of global pages, when it was filled. 0 never is current.
    var generation: UInt64
    var unused: UInt64

    /// Entries in the second level of each vCPU.
    static let count = 2048
}
