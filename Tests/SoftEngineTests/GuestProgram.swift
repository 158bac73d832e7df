import DavitTesting
import Foundation
import GuestMemory
import HostLinux
import MachineModel
import Synchronization
import X86

@testable import SoftEngine

/// A whole guest of the software engine: RAM, one or more vCPUs, and a program in assembly that the host's `as` translates.
///
/// The program starts at `GuestProgram.start`, in real mode unless it is told otherwise, and reports bytes, words or doublewords through
/// port 0xE9; HLT with interrupts off ends it.
final class GuestProgram {
    static let start: UInt64 = 0x1000

    let memory: GuestMemory
    let ports = ReportingPorts()
    let clock = HostClock()
    let engine: SoftEngine
    private(set) var logLines: LogLines

    /// `bits` is the code size in which the first instruction is: 16, 32 or 64.
    init(
        _ source: String, bits: Int = 16, vcpuCount: Int = 1, memorySize: UInt64 = 4 << 20,
        configure: (inout VCPUState) -> Void = { _ in }
    ) throws {
        memory = try GuestMemory(size: memorySize)
        let lines = LogLines()
        logLines = lines
        engine = try SoftEngine(
            EngineParts(
                memory: memory, io: ports, clock: clock, vcpuCount: vcpuCount, log: { line in lines.add(line) }))
        try memory.write(bytes: try Self.assemble(source), at: GuestPhysicalAddress(Self.start))
        var state = VCPUState()
        state.cs = SegmentState(attributes: 0x9B, limit: 0xFFFF)
        state.rip = Self.start
        state.generalRegisters[GeneralRegister.RSP] = 0x8000
        if bits > 16 { Self.makeFlat(&state, memory: memory, bits: bits) }
        configure(&state)
        try engine.vcpus[0].restore(state)
    }

    /// A flat GDT at 0x500: 8 code, 0x10 data, 0x18 user code, 0x20 user data, and for 64 bits identity-mapped page tables from
    /// 0x100000 on (2 MiB pages, 1 GiB, everything accessible to the user).
    private static func makeFlat(_ state: inout VCPUState, memory: GuestMemory, bits: Int) {
        let isLong = bits == 64
        let code: UInt64 = isLong ? 0x00AF_9B00_0000_FFFF : 0x00CF_9B00_0000_FFFF
        let userCode: UInt64 = isLong ? 0x00AF_FB00_0000_FFFF : 0x00CF_FB00_0000_FFFF
        let table: [UInt64] = [0, code, 0x00CF_9300_0000_FFFF, userCode, 0x00CF_F300_0000_FFFF]
        for (i, entry) in table.enumerated() {
            try! memory.write(entry, at: GuestPhysicalAddress(0x500 + UInt64(i) * 8))
        }
        state.gdtr = TableRegisterState(base: 0x500, limit: 0xFF)
        let data = SegmentState(selector: 0x10, attributes: 0xC093, limit: 0xFFFF_FFFF)
        state.cs = SegmentState(selector: 8, attributes: isLong ? 0xA09B : 0xC09B, limit: 0xFFFF_FFFF)
        state.ds = data
        state.es = data
        state.ss = data
        state.fs = data
        state.gs = data
        state.cr0 = CR0.PE | CR0.ET
        guard isLong else { return }
        state.tr = SegmentState(selector: 0x28, attributes: 0x8B, limit: 0x67, base: 0xA000)
        try! memory.write(0x7000 as UInt64, at: GuestPhysicalAddress(0xA004))
        try! memory.write(0x6000 as UInt64, at: GuestPhysicalAddress(0xA024))
        try! memory.write(0x68 as UInt16, at: GuestPhysicalAddress(0xA066))
        try! memory.write(0x10_1007 as UInt64, at: GuestPhysicalAddress(0x10_0000))
        try! memory.write(0x10_2007 as UInt64, at: GuestPhysicalAddress(0x10_1000))
        for i in 0..<UInt64(512) {
            try! memory.write(i << 21 | 0x87, at: GuestPhysicalAddress(0x10_2000 + i * 8))
        }
        state.cr3 = 0x10_0000
        state.cr4 = CR4.PAE
        state.efer = EFER.LME | EFER.LMA
        state.cr0 = CR0.PE | CR0.ET | CR0.PG
    }

    /// A 64-bit program that starts with an interrupt table at 0x9000 whose handlers report the vector, the error code and, for #PF, CR2,
    /// then go on at the address in R15. Vector 0x30 ends the program and may be called from user mode.
    /// RSP0 is 0x7000, IST1 0x6000, the user's code and data selectors are 0x1B and 0x23.
    static func withHandlers(_ body: String) -> String {
        let withCode: Set<Int> = [8, 10, 11, 12, 13, 14, 17]
        let stubs = (0..<32).map { vector in
            ".balign 16\n" + (withCode.contains(vector) ? "" : "push 0\n") + "push \(vector)\njmp report"
        }
        return """
            .code64
            lea rax, [rip + stubs]
            mov edi, 0x9000
            mov ecx, 32
            fill:
            mov word ptr [rdi], ax
            mov dword ptr [rdi + 2], 8
            mov byte ptr [rdi + 5], 0x8E
            mov word ptr [rdi + 6], 0
            mov qword ptr [rdi + 8], 0
            add rax, 16
            add rdi, 16
            loop fill
            lea rax, [rip + finish]
            mov word ptr [0x9300], ax
            mov dword ptr [0x9302], 8
            mov byte ptr [0x9305], 0xEE
            mov word ptr [0x9306], 0
            mov qword ptr [0x9308], 0
            lidt [rip + interrupt_table]
            jmp body
            .balign 16
            stubs:
            \(stubs.joined(separator: "\n"))
            .balign 16
            finish:
            cli
            hlt
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
            interrupt_table: .word 0xFFF
            .quad 0x9000
            body:
            \(body)
            """
    }

    /// Runs to the end. `reports` then has what the guest wrote.
    @discardableResult
    func run() -> VCPUExit {
        let boot = engine.vcpus[0]
        for vcpu in engine.vcpus.dropFirst() {
            // Whoever halts last reports it: then the boot processor sleeps already.
            let thread = Thread { if vcpu.run() != .stopped { boot.requestStop() } }
            thread.stackSize = 8 << 20
            thread.start()
        }
        let exit = boot.run()
        for vcpu in engine.vcpus.dropFirst() { vcpu.requestStop() }
        return exit
    }

    var reports: [UInt32] { ports.reports }
    var state: VCPUState { engine.vcpus[0].saveState() }

    subscript<Value: BitwiseCopyable>(_ address: UInt64, as type: Value.Type) -> Value {
        get { try! memory.read(type, at: GuestPhysicalAddress(address)) }
        set { try! memory.write(newValue, at: GuestPhysicalAddress(address)) }
    }

    static func assemble(_ source: String) throws -> [UInt8] { try GuestAssembler.assemble(source, at: start) }
}

final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    func add(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
}

/// Port 0xE9 collects; everything else is absent. Device memory notes writes and reads as the low bits of its address.
final class ReportingPorts: GuestIO {
    private let values = Mutex<[UInt32]>([])
    private let stores = Mutex<[(address: UInt64, value: UInt64)]>([])
    var reports: [UInt32] { values.withLock { $0 } }
    var stored: [(address: UInt64, value: UInt64)] { stores.withLock { $0 } }

    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 { UInt32(truncatingIfNeeded: width.mask) }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {
        if port == 0xE9 { values.withLock { $0.append(value) } }
    }
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 {
        address.rawValue >> 32 == 0 ? address.rawValue & width.mask : width.mask
    }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        stores.withLock { $0.append((address.rawValue, value)) }
    }
}

/// Real time; its timers are host threads that sleep.
final class HostClock: VMClock {
    var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
    var wallClock: Int64 { Int64(Date().timeIntervalSince1970 * 1e9) }
    func makeTimer(_ fire: @escaping @Sendable () -> Void) -> any VMTimer { Sleeper(clock: self, fire: fire) }

    private final class Sleeper: VMTimer {
        private let clock: HostClock
        private let fire: @Sendable () -> Void
        private let generation = Atomic<Int>(0)

        init(clock: HostClock, fire: @escaping @Sendable () -> Void) {
            self.clock = clock
            self.fire = fire
        }

        func arm(at deadline: UInt64) {
            let mine = generation.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
            let delay = deadline > clock.now ? deadline - clock.now : 0
            DispatchQueue.global().asyncAfter(deadline: .now() + .nanoseconds(Int(clamping: delay))) { [self] in
                if generation.load(ordering: .sequentiallyConsistent) == mine { fire() }
            }
        }

        func cancel() { generation.wrappingAdd(1, ordering: .sequentiallyConsistent) }
    }
}
