import X86

/// Processors in software that take the vCPUs of another engine over for a while: where KVM's instruction emulator gives up, or where
/// it is all that would run the guest's kernel.
public protocol StandIn: AnyObject, Sendable {
    /// By `VCPU.index`. Each is used by its vCPU's thread only.
    var processors: [any StandInProcessor] { get }
    /// Called with the number of a page of RAM, on a vCPU's thread, before code from there is read and kept: from then on the other
    /// engine must tell `engineDidWrite` of its guest's writes there. Nil ends the calls.
    func observeCode(_ willKeepCode: (@Sendable (_ page: UInt64) -> Void)?)
    /// The other engine's guest has written to a page of RAM.
    func engineDidWrite(page: UInt64)
}

/// One vCPU's processor in software. Only that vCPU's thread calls it.
public protocol StandInProcessor: AnyObject, Sendable {
    /// A word that any thread or signal handler may OR bits into, to have `run` return `.interrupted` soon.
    var request: (word: UnsafeMutablePointer<UInt32>, bits: UInt32) { get }
    /// Takes the vCPU over. Throws, and changes nothing, if this processor could never be in such a state.
    func load(_ state: VCPUState) throws(InvalidVCPUState)
    /// The vCPU's state: all but local APIC, time-stamp counter and the MSRs that are the other engine's.
    func save() -> VCPUState
    /// Runs from the state that was loaded, at first into the handler of `event`.
    func run(_ extent: StandInExtent, event: StandInEvent?) -> StandInEnd
    /// What `run` is to stop for: see `VCPU.setDebug`. User mode is left to the other engine only if nothing of it concerns the lower half.
    func setDebug(_ request: DebugRequest)
    /// What the guest may rely on has changed in the translation of addresses since the last call: its TLB was flushed.
    func takeTranslationChange() -> Bool
}

/// How long a stand-in goes on.
public enum StandInExtent: Sendable {
    case oneInstruction
    /// Until the guest is in user mode, in 64-bit code without anything to watch for: single steps or breakpoints.
    case untilPlainUserMode
}

/// What the other engine has for its guest.
public enum StandInEvent: Equatable, Sendable {
    case interrupt(vector: UInt8)
    case nmi
    /// Of the instruction at RIP; a page fault's address is in CR2.
    case exception(vector: UInt8, errorCode: UInt32?)
}

/// Why a stand-in stopped.
public enum StandInEnd: Equatable, Sendable {
    /// It ran as far as it should.
    case done
    /// The next instruction is for the other engine, whose devices or registers it touches.
    case declined
    case interrupted
    case debug(DebugStop)
    case tripleFault
}

/// The engine that is stood in for: what it answers itself, so that a stand-in keeps off (beside this local APIC, hypercalls and most
/// MSRs), and what its guest knows.
public struct PrincipalEngine: Sendable {
    public var ports: [ClosedRange<UInt16>]
    /// Pages of memory-mapped registers: guest physical addresses.
    public var pages: [UInt64]
    /// What CPUID says, by vCPU, after RESET.
    public var cpuid: [[CPUIDEntry]]
    /// The host's time-stamp counter when the guest's was 0.
    public var start: UInt64

    public init(ports: [ClosedRange<UInt16>], pages: [UInt64], cpuid: [[CPUIDEntry]], start: UInt64) {
        self.ports = ports
        self.pages = pages
        self.cpuid = cpuid
        self.start = start
    }
}
