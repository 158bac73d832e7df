import CDavit
import GuestMemory
import HostLinux
import MachineModel
import X86

/// Carries out one vCPU's instructions one by one: complete and exact, the reference for the translator.
///
/// Everything hot lives in `cpu`; this object's fields are constant, so that no access check stands in the way.
/// Only the vCPU's own thread calls it.
final class Interpreter {
    /// The architectural state, page aligned; in `stateArray`.
    let cpu: UnsafeMutablePointer<davit_cpu>
    /// `cpu.gpr`.
    let gpr: UnsafeMutablePointer<UInt64>
    /// `cpu.segment`.
    let segments: UnsafeMutablePointer<davit_segment>
    let memory: GuestMemory
    let io: any GuestIO
    /// Carries out vector and x87 instructions.
    let host: HostExecutor

    /// What only the interpreter needs; owned by this object.
    let system: UnsafeMutablePointer<SystemState>
    private let stateArray: ReservedArray<UInt8>
    /// Second-level TLB, and the current generation of each PCID; owned by this object.
    private let translationArray: ReservedArray<davit_translation>
    let translations: UnsafeMutablePointer<davit_translation>
    let pcidGenerations: UnsafeMutablePointer<UInt64>
    /// See `JumpTags`; owned by this object.
    let pcidJumpTags: UnsafeMutablePointer<UInt16>
    let jumpPages: UnsafeMutablePointer<UInt64>
    /// See `noteLarge`; owned by this object.
    let largeRegions: UnsafeMutablePointer<UInt64>
    static let largeRegionWords = 64
    /// A first-level TLB that is never filled; see `updateMode`.
    let emptyTLB: UnsafeMutablePointer<davit_tlb>
    /// Where cached code stands in RAM; shared by all vCPUs.
    let code: CodeMap
    /// `memory.base`.
    let ramBase: UnsafeMutableRawPointer
    /// What CPUID says, and what follows from it; shared by all vCPUs.
    let cpuid: CPUModel
    let isAMD: Bool
    /// MAXPHYADDR: page table entries with higher address bits set are reserved.
    let physicalAddressBits: UInt64
    let writableCR4: UInt64
    let writableEFER: UInt64
    /// MSRs that are only kept, by number, and their values; owned by this object.
    let storedMSRs: [StoredMSR]
    let storedValues: UnsafeMutablePointer<UInt64>
    /// Null for an interpreter that runs without interrupts.
    let apic: LocalAPIC?
    let apicID: UInt32
    /// What belongs to the engine that this interpreter stands in for; null if it is the machine's own.
    let foreign: PrincipalEngine?
    /// CPUID as that engine has it, for this vCPU.
    let foreignCPUID: [CPUIDEntry]
    /// Components of extended state that this processor keeps for that engine's guest without knowing what is in them.
    let opaqueComponents: [OpaqueComponent]
    /// Components that XCR0 may enable.
    let offeredXCR0: UInt64
    /// Null in tests that need no time of day.
    let clock: (any VMClock)?
    let start: MachineStart

    let debugger = DebuggerState()
    var stealTime = StealTime()
    let decoder: Decoder
    let cache: InstructionCache
    /// Null for a vCPU that has no others beside it.
    let gates: VCPUGates?
    let gate: VCPUGate?
    /// Ring of the last branches: from, to; owned by this object.
    let branches: UnsafeMutablePointer<UInt64>
    let trace: TraceOptions
    let log: @Sendable (String) -> Void

    /// `code` is the map that this vCPU shares with others. Throws if the host refuses memory.
    init(
        memory: GuestMemory, io: any GuestIO, code: CodeMap, cpuid: CPUModel, apic: LocalAPIC? = nil,
        clock: (any VMClock)? = nil, start: MachineStart = MachineStart(),
        gates: VCPUGates? = nil, foreign: PrincipalEngine? = nil, foreignIndex: Int = 0, trace: TraceOptions = [],
        log: @escaping @Sendable (String) -> Void = { _ in }
    ) throws(SystemError) {
        // While translated code runs, the host's RSP points at the state: the page before it takes the few pushes.
        stateArray = try ReservedArray(capacity: Self.stackSize + MemoryLayout<davit_cpu>.stride)
        translationArray = try ReservedArray(capacity: Int(DAVIT_TRANSLATIONS))
        host = try HostExecutor()
        cache = try InstructionCache()
        cpu = UnsafeMutableRawPointer(stateArray.base + Self.stackSize).bindMemory(to: davit_cpu.self, capacity: 1)
        gpr = davit_cpu_gpr(cpu)
        segments = davit_cpu_segment(cpu)
        self.memory = memory
        self.io = io
        self.code = code
        self.cpuid = cpuid
        isAMD = cpuid.isAMD
        physicalAddressBits = cpuid.physicalAddressBits
        writableCR4 = cpuid.writableCR4
        writableEFER = cpuid.writableEFER
        storedMSRs = StoredMSR.table(isAMD: cpuid.isAMD, physicalAddressBits: cpuid.physicalAddressBits)
        storedValues = .allocate(capacity: storedMSRs.count)
        for i in storedMSRs.indices { (storedValues + i).initialize(to: storedMSRs[i].reset) }
        self.apic = apic
        apicID = apic?.id ?? 0
        self.foreign = foreign
        foreignCPUID = foreign?.cpuid[foreignIndex] ?? []
        opaqueComponents = OpaqueComponent.all(foreignCPUID)
        offeredXCR0 = cpuid.offeredXCR0 | opaqueComponents.reduce(0) { $0 | $1.bit }
        self.clock = clock
        self.start = start
        system = .allocate(capacity: 1)
        system.initialize(to: SystemState())
        system.pointee.standsIn = foreign != nil
        translations = translationArray.base
        pcidJumpTags = .allocate(capacity: JumpTags.pcidCount)
        pcidJumpTags.initialize(repeating: 0, count: JumpTags.pcidCount)
        jumpPages = .allocate(capacity: JumpTags.pageWords)
        jumpPages.initialize(repeating: 0, count: JumpTags.pageWords)
        largeRegions = .allocate(capacity: Self.largeRegionWords)
        largeRegions.initialize(repeating: 0, count: Self.largeRegionWords)
        pcidGenerations = .allocate(capacity: 4096)
        pcidGenerations.initialize(repeating: 1, count: 4096)
        let empty = UnsafeMutableRawPointer.allocate(byteCount: MemoryLayout<davit_tlb>.stride, alignment: 64)
        empty.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<davit_tlb>.stride)
        emptyTLB = empty.bindMemory(to: davit_tlb.self, capacity: 1)
        Self.empty(emptyTLB)
        decoder = Decoder(
            features: cpuid.instructionFeatures(cpu: cpu), behaviour: cpuid.isAMD ? .amd : [])
        self.gates = gates
        gate = if let gates { VCPUGate(cpu: cpu, of: gates) } else { nil }
        if let gates, let gate { gates.add(gate) }
        branches = .allocate(capacity: 2 * Self.branchRingSize)
        branches.initialize(repeating: 0, count: 2 * Self.branchRingSize)
        self.trace = trace
        self.log = log
        ramBase = memory.base
        cpu.pointee.translations = translations
        cpu.pointee.pcid_generations = pcidGenerations
        cpu.pointee.global_generation = 1
        cpu.pointee.ram_base = UInt64(UInt(bitPattern: memory.base))
        cpu.pointee.low_ram_end = memory.regions[0].size
        cpu.pointee.high_ram_start = GuestMemory.holeEnd
        cpu.pointee.high_ram_size = memory.regions.count > 1 ? memory.regions[1].size : 0
        cpu.pointee.apic_page = UInt64.max
        cpu.pointee.code_pages = code.words
        cpu.pointee.tlb_current = davit_cpu_tlb(cpu, 0)
        // All of it is there to be emptied at first.
        for number in 0..<Int(DAVIT_TLB_MODES.rawValue) + 2 { davit_cpu_tlb_groups(cpu)[number] = UInt64.max }
        cpu.pointee.jump_groups = (UInt64.max, UInt64.max)
        cpu.pointee.tsc_offset = start.sharesCounter ? 0 : 0 &- start.tsc
        flushFirstLevel()
        updateMode()
    }

    /// An interpreter with RAM to itself, as tests want it.
    convenience init(memory: GuestMemory, io: any GuestIO) throws(SystemError) {
        guard let code = CodeMap(span: memory.span) else { throw SystemError("mmap") }
        try self.init(
            memory: memory, io: io, code: code, cpuid: CPUModel(vcpuCount: 1, tscFrequency: 1_000_000_000))
    }

    deinit {
        stateArray.deallocate()
        system.deallocate()
        translationArray.deallocate()
        pcidGenerations.deallocate()
        pcidJumpTags.deallocate()
        jumpPages.deallocate()
        largeRegions.deallocate()
        emptyTLB.deallocate()
        storedValues.deallocate()
        branches.deallocate()
        cache.deallocate()
    }

    /// Bytes before `cpu` that belong to it: see `init`.
    private static let stackSize = 4096

    /// 64-bit mode: CS.L in long mode.
    @inline(always) var is64Bit: Bool { cpu.pointee.code_size == 8 }
}
