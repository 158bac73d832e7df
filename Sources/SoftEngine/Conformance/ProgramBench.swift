import CDavit
import GuestMemory
import HostLinux
import MachineModel
import X86

/// A vCPU with a little RAM that runs whole programs, by turns of the run loop or an instruction at a time, with or without the
/// translator. For tests that hold the one against the other; between two calls state and memory are those of an instruction boundary.
package final class ProgramBench {
    /// All of the CPU's state. Unsafe: valid as long as this object.
    package let cpu: UnsafeMutablePointer<davit_cpu>
    /// RAM, at guest physical address 0. Unsafe: `ramSize` bytes, valid as long as this object.
    package let ram: UnsafeMutableRawPointer
    package let ramSize: Int
    private let interpreter: Interpreter
    private let translated: TranslatedExecution?
    private let devices = HashedDevices()
    private let memory: GuestMemory

    /// What comes after a turn or a step.
    package enum Outcome: Equatable, Sendable {
        case goOn
        /// In HLT.
        case halted
        /// After a triple fault.
        case shutDown
    }

    /// The system registers with which a program starts; all else is set through `cpu`.
    package struct Setup: Sendable {
        package var isUser = true
        /// Compatibility mode instead of 64-bit mode.
        package var is32Bit = false
        package var hasSMAP = false
        package var hasSMEP = false
        package var hasPCID = false
        package var hasGlobalPages = true
        /// CR0.TS: the first vector or x87 instruction raises #NM.
        package var isTaskSwitched = false
        package var pageTable: UInt64 = 0
        /// Linear.
        package var gdt: UInt64 = 0
        package var idt: UInt64 = 0
        package var tss: UInt64 = 0
        package var systemCall: UInt64 = 0
        package var systemCallFlagMask: UInt64 = 0
        package var fsBase: UInt64 = 0
        package var gsBase: UInt64 = 0
        package var kernelGSBase: UInt64 = 0

        package init() {}
    }

    /// Selectors that a program's descriptor table has, in Linux' order.
    package enum Selector {
        package static let kernelCode: UInt16 = 0x10
        package static let kernelData: UInt16 = 0x18
        package static let userCode32: UInt16 = 0x23
        package static let userData: UInt16 = 0x2B
        package static let userCode: UInt16 = 0x33
        package static let kernelCode32: UInt16 = 0x38
        package static let tss: UInt16 = 0x40
    }

    /// `isShared`: translated as on a machine with several vCPUs, LOCK prefixes and all.
    package init(ramSize: UInt64, isTranslated: Bool, isShared: Bool = false) throws(SystemError) {
        memory = try GuestMemory(size: ramSize)
        interpreter = try Interpreter(memory: memory, io: devices)
        cpu = interpreter.cpu
        ram = memory.base
        self.ramSize = Int(ramSize)
        translated = isTranslated ? try TranslatedExecution(interpreter: interpreter, isShared: isShared) : nil
        if let translated, !translated.catchFaults() { throw SystemError("sigaction") }
    }

    /// Sets all registers but the general ones, RIP, RFLAGS and the extended state, and forgets whatever RAM held before: to be called after
    /// RAM and those registers were written.
    package func reset(_ setup: Setup) {
        cpu.pointee.cr0 =
            CR0.PG | CR0.PE | CR0.WP | CR0.NE | CR0.ET | CR0.MP | CR0.AM | (setup.isTaskSwitched ? CR0.TS : 0)
        cpu.pointee.cr2 = 0
        cpu.pointee.cr3 = setup.pageTable
        cpu.pointee.cr4 =
            CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE | CR4.FSGSBASE | CR4.UMIP | CR4.DE
            | (setup.hasGlobalPages ? CR4.PGE : 0) | (setup.hasSMAP ? CR4.SMAP : 0) | (setup.hasSMEP ? CR4.SMEP : 0)
            | (setup.hasPCID ? CR4.PCIDE : 0)
        cpu.pointee.efer = EFER.LMA | EFER.LME | EFER.NXE | EFER.SCE
        cpu.pointee.xcr0 = XCR0.x87 | XCR0.SSE | XCR0.AVX
        cpu.pointee.star = UInt64(Selector.kernelCode) << 32 | UInt64(Selector.userCode32) << 48
        cpu.pointee.lstar = setup.systemCall
        cpu.pointee.cstar = setup.systemCall
        cpu.pointee.sfmask = setup.systemCallFlagMask
        cpu.pointee.kernel_gs_base = setup.kernelGSBase
        cpu.pointee.gdtr = davit_table_register(base: setup.gdt, limit: 0x7F)
        cpu.pointee.idtr = davit_table_register(base: setup.idt, limit: 0xFFF)
        let segments = davit_cpu_segment(cpu)
        let code = setup.is32Bit ? 0xC09B : 0xA09B as UInt16
        let user: UInt16 = setup.isUser ? 0x60 : 0
        let codeSelector =
            setup.isUser
            ? (setup.is32Bit ? Selector.userCode32 : Selector.userCode)
            : (setup.is32Bit ? Selector.kernelCode32 : Selector.kernelCode)
        let dataSelector = setup.isUser ? Selector.userData : Selector.kernelData
        let data = davit_segment(base: 0, limit: UInt32.max, selector: dataSelector, attributes: 0xC093 | user)
        for i in 0..<6 { segments[i] = data }
        segments[Int(DAVIT_CS.rawValue)] = davit_segment(
            base: 0, limit: UInt32.max, selector: codeSelector, attributes: code | user)
        if !setup.is32Bit {
            segments[Int(DAVIT_FS.rawValue)] = davit_segment(base: setup.fsBase, limit: 0, selector: 0, attributes: 0)
            segments[Int(DAVIT_GS.rawValue)] = davit_segment(base: setup.gsBase, limit: 0, selector: 0, attributes: 0)
        }
        segments[Int(DAVIT_LDTR.rawValue)] = davit_segment(base: 0, limit: 0xFFFF, selector: 0, attributes: 0x82)
        segments[Int(DAVIT_TR.rawValue)] = davit_segment(
            base: setup.tss, limit: 0x67, selector: Selector.tss, attributes: 0x8B)
        cpu.pointee.cpl = setup.isUser ? 3 : 0
        for i in 0..<6 { davit_cpu_dr(cpu)[i] = 0 }
        davit_cpu_dr(cpu)[6] = DR6.fixed
        davit_cpu_dr(cpu)[7] = DR7.fixed
        cpu.pointee.shadow = 0
        cpu.pointee.halted = 0
        cpu.pointee.interrupt_waits = 0
        interpreter.system.pointee.nmiBlocked = false
        interpreter.system.pointee.nmiPending = false
        interpreter.system.pointee.debugTraps = 0
        davit_cpu_served(cpu, UInt32.max)
        interpreter.code.didWrite(range: 0..<UInt64(ramSize))
        interpreter.didChangeState()
        interpreter.adoptX87Pointers()
        davit_cpu_served(cpu, DAVIT_EXIT_INTERRUPT.rawValue)
        // Programs that are loaded over one another are not one that rewrites itself.
        translated?.forgetRewrites()
        devices.hash = 0
        isShutDown = false
    }

    /// What devices have been told so far, in one number.
    package var deviceHash: UInt64 { devices.hash }

    /// A turn of the run loop: translated code up to where it is left, and the instruction that it leaves to the interpreter. With
    /// `isAsked` somebody asks for attention as soon as translated code runs.
    package func turn(isAsked: Bool = false) -> Outcome {
        var isAlive = true
        if isAsked, !interpreter.needsAttention, let translated, translated.acceptsMode {
            davit_cpu_request(cpu, DAVIT_EXIT_CALL.rawValue)
            isAlive = translated.carryOn()
        } else if let translated {
            isAlive = translated.turn() == nil
        } else {
            isAlive = interpreter.turn() == nil
        }
        davit_cpu_served(cpu, DAVIT_EXIT_INTERRUPT.rawValue | DAVIT_EXIT_CALL.rawValue)
        return outcome(isAlive)
    }

    private func outcome(_ isAlive: Bool) -> Outcome {
        if !isAlive { isShutDown = true }
        return isShutDown ? .shutDown : cpu.pointee.halted != 0 ? .halted : .goOn
    }

    /// One instruction by the interpreter, of a repeated one an element.
    package func step() -> Outcome {
        davit_cpu_request(cpu, DAVIT_EXIT_SINGLE_STEP.rawValue)
        return outcome(interpreter.step())
    }

    /// The CPU would take an interrupt from outside here.
    package var takesInterrupts: Bool { cpu.pointee.rflags & RFLAGS.IF != 0 && cpu.pointee.shadow == 0 }

    /// Delivers an interrupt from outside.
    package func interrupt(_ vector: UInt8) {
        let event = InterruptEvent(vector: vector, source: .hardware, returnAddress: cpu.pointee.rip)
        if !interpreter.deliverOrRaise(event) { isShutDown = true }
    }

    /// A triple fault ended the program.
    package private(set) var isShutDown = false

    /// An interrupt waits until RFLAGS.IF is set: translated code must look up then.
    package var interruptWaits: Bool {
        get { cpu.pointee.interrupt_waits != 0 }
        set { cpu.pointee.interrupt_waits = newValue ? 1 : 0 }
    }

    /// INVLPG.
    package func flush(page linear: UInt64) { interpreter.flushTLB(page: linear) }
    package func flushFirstLevel() { interpreter.flushFirstLevel() }
    package func flushAll() { interpreter.flushTLB() }

    /// A device writes to RAM.
    package func write(_ bytes: [UInt8], at physical: UInt64) {
        for (i, byte) in bytes.enumerated() {
            ram.storeBytes(of: byte, toByteOffset: Int(physical) + i, as: UInt8.self)
        }
        interpreter.code.didWrite(range: physical..<physical + UInt64(bytes.count))
    }

    /// The instruction at RIP, if it can be fetched.
    package struct NextInstruction: Sendable {
        package var length: Int
        /// Its first eight bytes, as far as it has them.
        package var bytes: UInt64
        package var name: String
        /// Its result differs each time.
        package var isIndeterminate: Bool
    }

    package func decodeNext() -> NextInstruction? {
        var instruction = Instruction()
        guard let physical = interpreter.physicalFetchAddress(cpu.pointee.rip),
            let host = interpreter.hostAddress(physical: physical)
        else { return nil }
        let room = min(15, 4096 - Int(physical & 0xFFF))
        let outcome = interpreter.decoder.decode(
            host.assumingMemoryBound(to: UInt8.self), available: room, codeSize: cpu.pointee.code_size,
            into: &instruction)
        guard outcome == .decoded else { return nil }
        let isIndeterminate =
            switch instruction.operation {
            case .rdtsc, .rdtscp, .rdrand, .rdseed, .rdpmc, .cpuid, .rdmsr, .wrmsr: true
            default: false
            }
        var bytes: UInt64 = 0
        for i in 0..<min(8, Int(instruction.length)) {
            bytes |= UInt64(host.load(fromByteOffset: i, as: UInt8.self)) << UInt64(i * 8)
        }
        return NextInstruction(
            length: Int(instruction.length), bytes: bytes,
            name: interpreter.decoder.entry(of: instruction).pointee.name,
            isIndeterminate: isIndeterminate)
    }
}

/// Reads give a number made of the address; writes are mixed into `hash`.
// Unchecked: the bench's own thread alone uses it.
private final class HashedDevices: GuestIO, @unchecked Sendable {
    var hash: UInt64 = 0

    private func mix(_ a: UInt64, _ b: UInt64) {
        hash = (hash ^ a) &* 0x9E37_79B9_7F4A_7C15
        hash = (hash ^ hash >> 29 ^ b) &* 0xBF58_476D_1CE4_E5B9
    }
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 {
        UInt32(truncatingIfNeeded: UInt64(port) &* 0x9E37_79B9 & width.mask)
    }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {
        mix(UInt64(port) | UInt64(width.bytes) << 32, UInt64(value))
    }
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 {
        address.rawValue &* 0x9E37_79B9_7F4A_7C15 >> 7 & width.mask
    }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        mix(address.rawValue | UInt64(width.bytes) << 56, value)
    }
}
