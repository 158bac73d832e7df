import DavitTesting
import GuestMemory
import HostLinux
import KVMEngine
import MachineModel
import SoftEngine
import X86

/// The engines that are compared.
enum ComparedEngine: String, CaseIterable, CustomStringConvertible {
    case soft
    case kvm
    /// KVM with local APICs alone.
    case kvmSplit
    /// KVM that tells of writes by rings.
    case kvmRing

    var description: String { rawValue }

    /// Those that this host has; it is said loudly if that is not all.
    static let all: [ComparedEngine] = {
        do {
            _ = try KVMHost()
            return allCases
        } catch {
            print("WARNING: the KVM half of the engine conformance tests does not run on this host: \(error)")
            return [.soft]
        }
    }()

    /// `takesKernel`: whether software runs the guest's kernel, which KVM without hardware is slow at.
    func make(_ parts: EngineParts, takesKernel: Bool) throws -> any Engine {
        switch self {
        case .soft: return try SoftEngine(parts)
        case .kvm, .kvmSplit, .kvmRing:
            let model = KVMProcessorModel(
                baseline: SoftEngine.processorModel(vcpuCount: parts.vcpuCount, features: .host),
                tscFrequency: SoftEngine.tscFrequency, features: .baseline, isHardwareBacked: false)
            return try KVMEngine(
                parts, host: try KVMHost(), model: model, takesKernel: takesKernel,
                irqchip: self == .kvmSplit ? .split : .kernel,
                dirtyLog: self == .kvmRing ? .ring : .bitmap,
                standIn: { try SoftStandIn(parts, for: $0) })
        }
    }
}

/// A small guest program on an engine of choice: RAM, vCPUs, and ports and registers that note what is done to them.
///
/// It starts at `origin`. A write to port 0xF4 stops all vCPUs; port 0xE9 collects reports.
final class ConformanceGuest {
    static let origin: UInt64 = 0x1000
    static let deviceAddress: UInt64 = 0xD000_0000

    let memory: GuestMemory
    let device = NotingDevice()
    let engine: any Engine
    private let clock: MonotonicClock

    /// `bits`: the code size at the start: real mode, or protected or long mode with flat segments and handlers to come.
    init(
        _ kind: ComparedEngine, _ source: String, bits: Int = 16, vcpuCount: Int = 1,
        takesKernel: Bool = !KVMHost.isHardwareBacked
    ) throws {
        memory = try GuestMemory(size: 4 << 20)
        clock = try MonotonicClock(threadName: "test-clock")
        let board = InterruptBoard(device)
        engine = try kind.make(
            EngineParts(
                memory: memory, io: board, clock: TestClock(clock), vcpuCount: vcpuCount, log: { print("log:", $0) }),
            takesKernel: takesKernel)
        try board.connect(engine.interrupts, clock: TestClock(clock))
        device.setEngine(engine)
        try memory.write(
            bytes: try GuestAssembler.assemble(source, at: Self.origin), at: GuestPhysicalAddress(Self.origin))
        try engine.vcpus[0].restore(try Self.start(bits: bits, memory: memory))
    }

    deinit {
        clock.shutDown()
        if case .localAPICs(let apics) = engine.interrupts { apics.connect(nil) }
    }

    /// Flat segments from a table at 0x500 (8 code, 0x10 data, 0x1B user code, 0x23 user data, 0x28 task state), and for 64 bits page tables
    /// from 0x100000 on that map the first GiB, the device's and the local APIC's registers to themselves.
    private static func start(bits: Int, memory: GuestMemory) throws -> VCPUState {
        var state = VCPUState()
        state.cs = SegmentState(attributes: 0x9B, limit: 0xFFFF)
        state.rip = origin
        state.generalRegisters[GeneralRegister.RSP] = 0x8000
        guard bits > 16 else { return state }
        func write(_ value: UInt64, _ address: UInt64) throws {
            try memory.write(value, at: GuestPhysicalAddress(address))
        }
        let isLong = bits == 64
        let table: [UInt64] = [
            0, isLong ? 0x00AF_9B00_0000_FFFF : 0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF,
            isLong ? 0x00AF_FB00_0000_FFFF : 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF, 0x0000_8B00_A000_0067, 0,
        ]
        for (i, entry) in table.enumerated() { try write(entry, 0x500 + UInt64(i) * 8) }
        state.gdtr = TableRegisterState(base: 0x500, limit: 0x37)
        let data = SegmentState(selector: 0x10, attributes: 0xC093, limit: 0xFFFF_FFFF)
        state.cs = SegmentState(selector: 8, attributes: isLong ? 0xA09B : 0xC09B, limit: 0xFFFF_FFFF)
        (state.ds, state.es, state.ss, state.fs, state.gs) = (data, data, data, data, data)
        state.cr0 = CR0.PE | CR0.ET | CR0.NE
        state.tr = SegmentState(selector: 0x28, attributes: 0x8B, limit: 0x67, base: 0xA000)
        guard isLong else { return state }
        // RSP0.
        try write(0x7000, 0xA004)
        try write(0x10_1007, 0x10_0000)
        try write(0x10_2007, 0x10_1000)
        try write(0x10_3007, 0x10_1018)
        for i in 0..<UInt64(512) {
            try write(i << 21 | 0x87, 0x10_2000 + i * 8)
            try write(3 << 30 | i << 21 | 0x87, 0x10_3000 + i * 8)
        }
        state.cr3 = 0x10_0000
        state.cr4 = CR4.PAE | CR4.OSFXSR
        state.efer = EFER.LME | EFER.LMA
        state.cr0 |= CR0.PG
        return state
    }

    /// A 64-bit program behind an interrupt table whose handlers report vector, error code and, for #PF, CR2, and go on at R15.
    static func withHandlers(_ body: String) -> String {
        let withCode: Set<Int> = [8, 10, 11, 12, 13, 14, 17]
        let stubs = (0..<64).map { vector in
            ".balign 16\n" + (withCode.contains(vector) ? "" : "push 0\n") + "push \(vector)\njmp report"
        }
        return """
            .code64
            lea rax, [rip + stubs]
            mov edi, 0x9000
            mov ecx, 64
            fill:
            mov word ptr [rdi], ax
            mov dword ptr [rdi + 2], 0x8E000008
            mov word ptr [rdi + 2], 8
            mov word ptr [rdi + 4], 0xEE00
            mov word ptr [rdi + 6], 0
            mov qword ptr [rdi + 8], 0
            add rax, 16
            add rdi, 16
            loop fill
            lidt [rip + interrupt_table]
            jmp body
            .balign 16
            stubs:
            \(stubs.joined(separator: "\n"))
            report:
            push rax
            mov eax, [rsp + 8]
            out 0xE9, eax
            mov eax, [rsp + 16]
            out 0xE9, eax
            cmp dword ptr [rsp + 8], 14
            jne 1f
            mov rax, cr2
            out 0xE9, eax
            1:
            pop rax
            add rsp, 16
            mov [rsp], r15
            iretq
            interrupt_table: .word 0x3FF
            .quad 0x9000
            body:
            \(body)
            \(end)
            """
    }

    /// Stops the machine.
    static let end = "out 0xF4, al\n9: jmp 9b"

    /// Runs until the program stops itself.
    @discardableResult
    func run() throws -> VCPUExit {
        var threads: [HostThread] = []
        for vcpu in engine.vcpus.dropFirst() {
            threads.append(try HostThread(name: "test-vcpu") { _ = vcpu.run() })
        }
        let exit = engine.vcpus[0].run()
        for vcpu in engine.vcpus.dropFirst() { vcpu.requestStop() }
        for thread in threads { thread.join() }
        return exit
    }

    var reports: [UInt32] { device.reports }
    var state: VCPUState { engine.vcpus[0].saveState() }
}

/// The host's monotonic clock as engines want it.
final class TestClock: VMClock {
    private let clock: MonotonicClock

    private final class Timer: VMTimer {
        let alarm: MonotonicClock.Alarm
        init(_ alarm: MonotonicClock.Alarm) { self.alarm = alarm }
        func arm(at deadline: UInt64) { alarm.set(at: deadline) }
        func cancel() { alarm.clear() }
    }

    init(_ clock: MonotonicClock) { self.clock = clock }

    var now: UInt64 { clock.now }
    var wallClock: Int64 { clock.wallClock }
    func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer { Timer(clock.makeAlarm(fire)) }
}
