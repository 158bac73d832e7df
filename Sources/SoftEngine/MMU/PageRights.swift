import CDavit

/// What a page translation allows: bits beside a page's physical address, all below 2^12; see `davit_page_rights`.
enum PageRights {
    static let user = UInt64(DAVIT_PAGE_USER.rawValue)
    static let writable = UInt64(DAVIT_PAGE_WRITABLE.rawValue)
    static let noExecute = UInt64(DAVIT_PAGE_NO_EXECUTE.rawValue)
    static let global = UInt64(DAVIT_PAGE_GLOBAL.rawValue)
    /// The dirty bit is set in guest memory: a store needs no walk.
    static let dirty = UInt64(DAVIT_PAGE_DIRTY.rawValue)
    /// Part of a page of 2 or 4 MiB.
    static let large = UInt64(DAVIT_PAGE_LARGE.rawValue)
    /// Part of a page of 1 GiB.
    static let huge = UInt64(DAVIT_PAGE_HUGE.rawValue)
    /// All of the above.
    static let mask: UInt64 = 0xFFF
}

/// Why memory is accessed: it decides which rights are asked for.
enum AccessKind {
    case read
    case write
    case fetch
}
