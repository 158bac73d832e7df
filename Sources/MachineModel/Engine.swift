import GuestMemory
import X86

/// What runs the guest's instructions: `/dev/kvm`, or the software engine. It is made for one machine from `EngineParts`.
public protocol Engine: AnyObject, Sendable {
    /// Who models interrupt controllers and the PIT.
    var interrupts: EngineInterrupts { get }
    /// Where the guest's writes need not end in `EngineParts.io`; nil if they all do.
    var doorbells: (any DoorbellSpace)? { get }
    /// In order of `VCPU.index`, as many as `EngineParts.vcpuCount`. Vcpu 0 is the boot processor; the others wait for a SIPI.
    var vcpus: [any VCPU] { get }
    /// Lines for `--stats`: name and value.
    func statistics() -> [(name: String, value: String)]
}

extension Engine {
    public var doorbells: (any DoorbellSpace)? { nil }
}

/// What an engine is built from. `io` is called for everything that is not RAM.
public struct EngineParts: Sendable {
    public var memory: GuestMemory
    public var io: any GuestIO
    public var clock: any VMClock
    public var vcpuCount: Int
    public var features: ProcessorFeatures
    public var trace: TraceOptions
    /// Where trace lines and warnings go; a line without its end.
    public var log: @Sendable (String) -> Void

    public init(
        memory: GuestMemory, io: any GuestIO, clock: any VMClock, vcpuCount: Int,
        features: ProcessorFeatures = .host, trace: TraceOptions = [],
        log: @escaping @Sendable (String) -> Void
    ) {
        self.memory = memory
        self.io = io
        self.clock = clock
        self.vcpuCount = vcpuCount
        self.features = features
        self.trace = trace
        self.log = log
    }
}

/// Which features the guest's processor has.
public enum ProcessorFeatures: String, CaseIterable, Sendable {
    /// All that the engine can give on this host.
    case host
    /// What every engine can give on this host: a saved machine goes on with another.
    case baseline
}

/// What `--trace` prints.
public struct TraceOptions: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Port and memory-mapped I/O.
    public static let io = TraceOptions(rawValue: 1)
    public static let exceptions = TraceOptions(rawValue: 2)
    public static let interrupts = TraceOptions(rawValue: 4)
    /// Every instruction: slow.
    public static let instructions = TraceOptions(rawValue: 8)
}

public enum EngineInterrupts: Sendable {
    /// The engine has local APICs only: the machine adds 8259s, an I/O APIC and a PIT of its own.
    case localAPICs(any LocalAPICBus)
    /// The engine has all of them (KVM's in-kernel irqchip): a line for each global system interrupt, ISA's by their own numbers.
    case wholeChip(line: @Sendable (_ gsi: Int) -> any IRQLine, bus: any InterruptMessageReceiver)
}

/// One virtual CPU, run by a host thread of its own.
public protocol VCPU: AnyObject, Sendable {
    var index: Int { get }
    /// Carries out guest instructions on the calling thread, sleeping through HLT, until something stops it.
    func run() -> VCPUExit
    /// Makes `run` return `.stopped` at the next instruction boundary, or at once the next time it is called. Any thread may call.
    func requestStop()
    /// Only while it is not in `run`.
    func saveState() -> VCPUState
    /// Only while it is not in `run`. Throws `InvalidVCPUState` and changes nothing if no CPU could be in this state.
    func restore(_ state: VCPUState) throws(InvalidVCPUState)
    /// What a debugger wants from the next `run` on. Only while it is not in `run`. Throws, and changes nothing, if that is more than
    /// the engine can watch for.
    func setDebug(_ request: DebugRequest) throws(DebugRefusal)
}

/// Why `VCPU.run` returned.
public enum VCPUExit: Equatable, Sendable {
    /// `requestStop` was called.
    case stopped
    /// The guest faulted while a double fault was being delivered; with registers and last branches to print.
    case tripleFault(report: String)
    /// HLT with interrupts off on the only vCPU that could wake it, with nothing that would.
    case haltedForever(report: String)
    /// What `setDebug` asked for has come.
    case debug(DebugStop)
    /// The engine cannot go on: a defect or a missing host right, with what to print.
    case failed(report: String)
}

public struct InvalidVCPUState: Error, Equatable, Sendable, CustomStringConvertible {
    /// Which field, and what is wrong with it.
    public let description: String
    public init(_ description: String) { self.description = description }
}
