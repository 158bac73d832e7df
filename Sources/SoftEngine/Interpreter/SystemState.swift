import CDavit

/// State of one vCPU that translated code never addresses: kept apart from the interpreter object so that no
/// exclusivity check stands in the way. Only the vCPU's own thread touches it.
struct SystemState: BitwiseCopyable {
    /// PAE paging's page-directory-pointer-table entries, read when CR3 is loaded (SDM vol. 3, 4.4.1).
    var pdpte: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    /// Bit n: a part of a page of 1 GiB from a region with hash n is cached.
    var hugeRegions: UInt64 = 0
    /// Address spaces of the jump cache's second level: see `JumpTags`.
    var jumpTags = JumpTags()

    /// EXT of error codes: 1 while an event from outside the program is delivered.
    var externalEvent: UInt32 = 0
    /// An NMI handler runs: no other NMI until the next IRET.
    var nmiBlocked = false
    var nmiPending = false
    /// After INIT, until a SIPI comes.
    var waitsForSIPI = false
    /// Interrupts taken, for --stats.
    var interrupts: UInt64 = 0
    /// Exceptions raised, for --stats.
    var exceptions: UInt64 = 0
    /// Translations that the first-level TLB did not have, and those of them that page tables were walked for, for --stats.
    var firstLevelMisses: UInt64 = 0
    var secondLevelMisses: UInt64 = 0
    /// Branches put into the ring so far.
    var branchCount = 0
    /// Undefined instructions reported so far.
    var unknownInstructions = 0

    /// Enable bits of DR7; 0 if no breakpoint is armed.
    var breakpoints: UInt64 = 0
    /// A debugger on the host wants something: see `DebuggerState`.
    var isDebugged = false
    /// In user mode too.
    var isUserModeDebugged = false
    /// It wants one instruction, before which interrupts wait.
    var isSingleStepped = false
    /// CPL 3, CR0.AM and EFLAGS.AC: data accesses are checked for alignment.
    var checksAlignment = false
    /// A data or port breakpoint is armed, or a debugger's watchpoint.
    var watchesData = false
    /// Causes (bits of DR6) of the debug trap due after the current instruction.
    var debugTraps: UInt64 = 0

    var tscAdjust: UInt64 = 0
    /// kvmclock's two MSRs.
    var kvmSystemTime: UInt64 = 0
    var kvmWallClock: UInt64 = 0
    /// Steal time's MSR.
    var stealTimePlace: UInt64 = 0
    /// Paravirtual EOI: its MSR, and whether the guest may end the interrupt in service by the word there.
    var endOfInterruptPlace: UInt64 = 0
    var endOfInterruptIsOffered = false
    /// Another vCPU has asked for the end of HLT, or of the next one.
    var isKicked = false

    /// The instruction after the last one of the block being run; 0 ends the block after the current instruction.
    var blockEnd: Int = 0
    /// A page with cached code for which `slowHostPointerForWrite` gave a pointer: the write is noted when the instruction is done.
    var pendingCodeWrite: UInt64 = UInt64.max
    var pendingCodeWriteSize: UInt64 = 0

    /// This processor stands in for another engine's, which `foreign` is about.
    var standsIn = false
    /// The instruction at RIP is for that engine.
    var hasDeclined = false
    /// Where that engine's local APIC answers, all ones if nowhere.
    var foreignAPICPage: UInt64 = UInt64.max
    /// A TLB flush was asked for.
    var translationsChanged = false
}
