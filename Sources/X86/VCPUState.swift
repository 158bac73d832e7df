/// A segment register with its hidden part.
public struct SegmentState: Equatable, Sendable, BitwiseCopyable {
    public var selector: UInt16
    /// Bits 40-55 of the descriptor with the limit's bits taken out: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, D/B 14, G 15.
    public var attributes: UInt16
    /// The highest offset, in bytes (G applied).
    public var limit: UInt32
    public var base: UInt64

    public init(selector: UInt16 = 0, attributes: UInt16 = 0, limit: UInt32 = 0, base: UInt64 = 0) {
        self.selector = selector
        self.attributes = attributes
        self.limit = limit
        self.base = base
    }
}

/// GDTR or IDTR.
public struct TableRegisterState: Equatable, Sendable, BitwiseCopyable {
    public var base: UInt64
    public var limit: UInt16

    public init(base: UInt64 = 0, limit: UInt16 = 0) {
        self.base = base
        self.limit = limit
    }
}

/// What a virtual CPU is doing as a whole (Intel SDM vol. 3, 8.4).
public enum VCPUActivity: UInt8, Equatable, Sendable {
    case running
    /// In HLT until an interrupt comes.
    case halted
    /// An application processor after INIT, until a SIPI comes.
    case waitingForSIPI
}

/// The whole architectural state of one virtual CPU: what engines exchange, boot protocols set and snapshots keep.
///
/// Its initial value is the state after RESET (SDM vol. 3, table 9-1).
public struct VCPUState: Equatable, Sendable {
    /// RAX RCX RDX RBX RSP RBP RSI RDI R8-R15: the order of instruction encodings.
    public var generalRegisters: [UInt64] = Array(repeating: 0, count: 16)
    public var rip: UInt64 = 0xFFF0
    public var rflags: UInt64 = RFLAGS.reserved1

    public var es = SegmentState(attributes: 0x93, limit: 0xFFFF)
    public var cs = SegmentState(selector: 0xF000, attributes: 0x9B, limit: 0xFFFF, base: 0xFFFF_0000)
    public var ss = SegmentState(attributes: 0x93, limit: 0xFFFF)
    public var ds = SegmentState(attributes: 0x93, limit: 0xFFFF)
    public var fs = SegmentState(attributes: 0x93, limit: 0xFFFF)
    public var gs = SegmentState(attributes: 0x93, limit: 0xFFFF)
    public var ldtr = SegmentState(attributes: 0x82, limit: 0xFFFF)
    public var tr = SegmentState(attributes: 0x8B, limit: 0xFFFF)
    public var gdtr = TableRegisterState(limit: 0xFFFF)
    public var idtr = TableRegisterState(limit: 0xFFFF)

    public var cr0: UInt64 = 0x6000_0010
    public var cr2: UInt64 = 0
    public var cr3: UInt64 = 0
    public var cr4: UInt64 = 0
    public var cr8: UInt64 = 0
    public var efer: UInt64 = 0
    public var xcr0: UInt64 = XCR0.x87
    /// DR0-DR3, DR6, DR7.
    public var debugRegisters: [UInt64] = [0, 0, 0, 0, 0xFFFF_0FF0, 0x400]

    /// Every other model-specific register that is kept, by number, the APIC base and TSC aside.
    public var modelSpecificRegisters: [UInt32: UInt64] = [:]
    public var apicBase: UInt64 = 0xFEE0_0900
    public var timeStampCounter: UInt64 = 0

    /// Extended state in the standard XSAVE layout; empty means its state after RESET.
    public var xsave: [UInt8] = []
    /// The local APIC's register page as KVM lays it out (4 KiB, a register each 16 bytes); empty means its state after RESET.
    public var localAPIC: [UInt8] = []
    public var activity: VCPUActivity = .running
    /// Interrupts are held off for one more instruction: 0 no, 1 after STI, 2 after MOV or POP SS.
    public var interruptShadow: UInt8 = 0
    public var nmiBlocked = false
    public var nmiPending = false

    public init() {}
}
