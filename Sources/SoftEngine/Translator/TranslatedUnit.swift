/// A straight run of guest instructions inside one page, translated: execution may enter it at any instruction boundary.
struct TranslatedUnit: BitwiseCopyable {
    /// Guest physical address of the first instruction.
    var physical: UInt64
    /// Linear address of the first instruction.
    var rip: UInt64
    /// `TranslationMode.number` that it was translated for, and `plain` if it is entered only where a window of another fails.
    var mode: Int32
    static let plain: Int32 = 0x100
    /// Guest bytes it covers, all in one page.
    var byteCount: UInt32
    /// Emitted code, in the writable view.
    var start: UnsafeMutablePointer<UInt8>
    var end: UnsafeMutablePointer<UInt8>
    /// Its instructions in `TranslationIndex.boundaries`.
    var firstBoundary: Int32
    var boundaryCount: Int32
    /// Chains through the units of one hash bucket, and of one guest page; -1 ends them.
    var nextInBucket: Int32
    var nextInPage: Int32
    /// First link that leads here; -1 none.
    var firstIncoming: Int32
    var isLive: Bool
}

/// Where an instruction begins, in the guest's code and in the host's.
struct InstructionBoundary: BitwiseCopyable {
    /// From `TranslatedUnit.start`, in bytes.
    var host: UInt32
    /// From `TranslatedUnit.rip`, in bytes.
    var guest: UInt16
    /// Accesses from here on rely on a check before: execution may not begin here.
    var isInside = false
}

/// A direct jump from one unit to another in the same page.
struct TranslationLink: BitwiseCopyable {
    /// The jump's rel32.
    var place: UnsafeMutablePointer<UInt8>
    /// Where it leads while it is not linked.
    var stub: UnsafeMutablePointer<UInt8>
    /// Next link to the same unit; -1 ends the chain.
    var nextIncoming: Int32
}
