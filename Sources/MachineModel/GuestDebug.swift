/// What a debugger on the host wants of a vCPU.
public struct DebugRequest: Equatable, Sendable {
    /// Linear addresses of instructions before which the vCPU stops.
    public var breakpoints: Set<UInt64> = []
    public var watchpoints: [Watchpoint] = []
    /// Stop after one instruction. Interrupts wait meanwhile, unless it sleeps in HLT.
    public var singleStep = false

    public init() {}

    /// Something in it may come in user mode as systems with their kernel in the upper half have it.
    public var concernsLowerHalf: Bool {
        singleStep || breakpoints.contains { $0 >> 63 == 0 } || watchpoints.contains { $0.address >> 63 == 0 }
    }

    public var isEmpty: Bool { breakpoints.isEmpty && watchpoints.isEmpty && !singleStep }
}

/// Data whose use stops a vCPU after the instruction.
public struct Watchpoint: Hashable, Sendable {
    public enum Kind: Sendable { case write, read, access }

    public var kind: Kind
    /// Linear.
    public var address: UInt64
    /// In bytes, 1 or more.
    public var size: UInt64

    public init(kind: Kind, address: UInt64, size: UInt64) {
        self.kind = kind
        self.address = address
        self.size = size
    }

    /// An access meets it.
    public func matches(linear: UInt64, size: UInt64, isWrite: Bool) -> Bool {
        guard kind == .access || (kind == .write) == isWrite else { return false }
        return linear &- address < self.size || address &- linear < size
    }
}

/// Why a vCPU has stopped for a debugger.
public enum DebugStop: Equatable, Sendable {
    /// The instruction at RIP has a breakpoint, and has not been carried out.
    case breakpoint
    case watchpoint(Watchpoint)
    case singleStep
}

/// An engine has no room for what a debugger wants: hardware has four debug registers.
public struct DebugRefusal: Error, Equatable, Sendable {
    public init() {}
}
