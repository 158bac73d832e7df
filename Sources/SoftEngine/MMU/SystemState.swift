import CDavit

/// State of one vCPU that translated code never addresses: kept apart from the interpreter object so that no
/// exclusivity check stands in the way. Only the vCPU's own thread touches it.
struct SystemState: BitwiseCopyable {
    /// PAE paging's page-directory-pointer-table entries, read when CR3 is loaded (SDM vol. 3, 4.4.1).
    var pdpte: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    /// Guest physical page of the local APIC's registers, all ones if it has none.
    var apicPage: UInt64 = UInt64.max
    /// PCID in force; 0 without CR4.PCIDE.
    var pcid: UInt64 = 0
    /// Generation that second-level entries of global pages carry.
    var globalGeneration: UInt64 = 1
    /// Bit n: a part of a page of 2 or 4 MiB (1 GiB) from a region with hash n is cached.
    var largeRegions: UInt64 = 0
    var hugeRegions: UInt64 = 0

    /// An interrupt was found that could not be delivered yet; see `setFlags`.
    var interruptWaits = false

    /// The instruction after the last one of the block being run; 0 ends the block after the current instruction.
    var blockEnd: Int = 0
    /// A page with cached code for which `hostPointerForWrite` gave a pointer: the write is noted when the instruction is done.
    var pendingCodeWrite: UInt64 = UInt64.max
    var pendingCodeWriteSize: UInt64 = 0
}
