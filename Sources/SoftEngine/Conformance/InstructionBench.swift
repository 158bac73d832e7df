import CDavit
import GuestMemory
import HostLinux
import MachineModel
import X86

/// The interpreter on a bench: user mode, a few mapped pages, one instruction at a time, and the exception in the hand instead
/// of in the guest. For tests that compare it with something else; the state is set and read through `cpu`.
package final class InstructionBench {
    /// A run of pages to map, user accessible.
    package struct Pages: Sendable {
        /// Page aligned.
        package var linear: UInt64
        /// In bytes, a multiple of the page size.
        package var size: UInt64
        package var isWritable: Bool
        package var isExecutable: Bool

        package init(linear: UInt64, size: UInt64, isWritable: Bool, isExecutable: Bool) {
            self.linear = linear
            self.size = size
            self.isWritable = isWritable
            self.isExecutable = isExecutable
        }
    }

    /// What became of an instruction.
    package struct Outcome: Equatable, Sendable {
        /// The exception's vector; nil when the instruction was carried out.
        package var vector: UInt8?
        /// 0 for exceptions that have none.
        package var errorCode: UInt32
    }

    /// All of the CPU's state. Unsafe: valid as long as this object.
    package let cpu: UnsafeMutablePointer<davit_cpu>
    let interpreter: Interpreter
    let decoder: Decoder
    private let memory: GuestMemory
    private var nextFrame: UInt64 = 0x10_0000

    private static let pml4: UInt64 = 0x1000
    private static let pdpt: UInt64 = 0x2000
    private static let pd: UInt64 = 0x3000

    /// A CPU with the host's instruction set in 64-bit mode at CPL 3, as Linux sets one up. Linear addresses are below 1 GiB.
    package init(mapping: [Pages]) throws(SystemError) {
        memory = try GuestMemory(size: 4 << 20)
        interpreter = Interpreter(memory: memory, io: Silence())
        cpu = interpreter.cpu
        decoder = Decoder(features: .host, behaviour: HostCPUID.isAMD ? .amd : [])

        cpu.pointee.cr0 = CR0.PG | CR0.PE | CR0.WP | CR0.NE | CR0.ET | CR0.MP | CR0.AM
        cpu.pointee.cr3 = Self.pml4
        cpu.pointee.cr4 =
            CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE | CR4.FSGSBASE | CR4.UMIP | CR4.PGE | CR4.DE
        cpu.pointee.efer = EFER.LMA | EFER.LME | EFER.NXE | EFER.SCE
        cpu.pointee.xcr0 = XCR0.x87 | XCR0.SSE | XCR0.AVX
        cpu.pointee.cpl = 3
        cpu.pointee.rflags = RFLAGS.reserved1 | RFLAGS.IF
        setCodeSize(8)
        put(Self.pml4, Self.pdpt | 7)
        put(Self.pdpt, Self.pd | 7)
        for pages in mapping { map(pages) }
        interpreter.updateMode()
    }

    /// 8 for 64-bit code, 4 for 32-bit compatibility code, with Linux's selectors and flat segments.
    package func setCodeSize(_ size: UInt32) {
        let segments = davit_cpu_segment(cpu)
        let isLong = size == 8
        cpu.pointee.code_size = size
        segments[Int(DAVIT_CS.rawValue)] = davit_segment(
            base: 0, limit: 0xFFFF_FFFF, selector: isLong ? 0x33 : 0x23, attributes: isLong ? 0xA0FB : 0xC0FB)
        for index in [DAVIT_SS, DAVIT_DS, DAVIT_ES] {
            segments[Int(index.rawValue)] = davit_segment(
                base: 0, limit: 0xFFFF_FFFF, selector: 0x2B, attributes: 0xC0F3)
        }
    }

    private func put(_ address: UInt64, _ entry: UInt64) {
        (memory.base + Int(address)).storeBytes(of: entry, as: UInt64.self)
    }

    private func get(_ address: UInt64) -> UInt64 {
        (memory.base + Int(address)).load(as: UInt64.self)
    }

    private func map(_ pages: Pages) {
        for linear in stride(from: pages.linear, to: pages.linear + pages.size, by: 4096) {
            let directory = Self.pd + (linear >> 21 & 511) * 8
            if get(directory) == 0 { put(directory, takeFrame() | 7) }
            let rights: UInt64 = 5 | (pages.isWritable ? 2 : 0) | (pages.isExecutable ? 0 : 1 << 63)
            put(get(directory) & ~0xFFF + (linear >> 12 & 511) * 8, takeFrame() | rights)
        }
    }

    private func takeFrame() -> UInt64 {
        defer { nextFrame += 4096 }
        return nextFrame
    }

    /// Where a mapped page's content stands; runs that were mapped together are contiguous.
    package func host(linear: UInt64) -> UnsafeMutableRawPointer {
        let table = get(Self.pd + (linear >> 21 & 511) * 8) & ~0xFFF
        let page = get(table + (linear >> 12 & 511) * 8) & 0xF_FFFF_F000
        return memory.base + Int(page | linear & 0xFFF)
    }

    /// To be called after `cpu` was written: what hangs on RFLAGS, and the x87 pointers, which are kept apart.
    package func adoptState() {
        interpreter.updateMode()
        interpreter.adoptX87Pointers()
    }

    /// To be called before `cpu.xsave` is read.
    package func publishState() { interpreter.publishX87Pointers() }

    /// Carries out the instruction at RIP, whose bytes are given. On an exception RIP stays where it is.
    package func step(code: UnsafePointer<UInt8>, available: Int) -> Outcome {
        // The state was set by hand: nothing of an earlier instruction's may linger.
        davit_cpu_served(cpu, UInt32.max)
        interpreter.updateMode()
        var instruction = Instruction()
        let outcome = decoder.decode(
            code, available: available, codeSize: cpu.pointee.code_size, into: &instruction)
        guard outcome == .decoded else {
            return Outcome(vector: ExceptionVector.GP.rawValue, errorCode: 0)
        }
        if instruction.operation == .invalid { return Outcome(vector: ExceptionVector.UD.rawValue, errorCode: 0) }
        cpu.pointee.next_rip = cpu.pointee.rip &+ UInt64(instruction.length)
        if cpu.pointee.code_size != 8 { cpu.pointee.next_rip &= 0xFFFF_FFFF }
        do throws(GuestFault) {
            try interpreter.execute(instruction)
            cpu.pointee.rip = cpu.pointee.next_rip
            return Outcome(vector: nil, errorCode: 0)
        } catch {
            return Outcome(vector: error.vector, errorCode: error.hasErrorCode ? error.errorCode : 0)
        }
    }
}

/// Nothing answers.
private final class Silence: GuestIO {
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 { UInt32.max }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {}
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 { UInt64.max }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {}
}
