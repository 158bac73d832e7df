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
    /// Knows all that the host's CPU has, also what the guest's CPUID hides.
    let hostDecoder: Decoder
    private let memory: GuestMemory
    private var nextFrame: UInt64 = 0x10_0000

    private static let pml4: UInt64 = 0x1000
    private static let pdpt: UInt64 = 0x2000
    private static let pd: UInt64 = 0x3000
    /// Linear; only the supervisor reaches it.
    private static let tables: UInt64 = 0x3000_0000
    private static let ldt = tables + 0x800
    private static let tss = tables + 0x100
    /// Stack of the handlers, grows down; below it there is room for their frame.
    private static let handlerStack = tables + 0x800
    private static let idt = tables + 0x1000

    /// A CPU as a guest has it, in 64-bit mode at CPL 3, as Linux sets one up. Linear addresses are below 768 MiB. `ldt` holds
    /// the descriptors of the local descriptor table.
    package init(mapping: [Pages], ldt: [UInt64] = []) throws(SystemError) {
        memory = try GuestMemory(size: 4 << 20)
        interpreter = try Interpreter(memory: memory, io: Silence())
        cpu = interpreter.cpu
        hostDecoder = Decoder(features: .host, behaviour: HostCPUID.isAMD ? .amd : [])

        cpu.pointee.cr0 = CR0.PG | CR0.PE | CR0.WP | CR0.NE | CR0.ET | CR0.MP | CR0.AM
        cpu.pointee.cr3 = Self.pml4
        cpu.pointee.cr4 =
            CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE | CR4.FSGSBASE | CR4.UMIP | CR4.PGE
        cpu.pointee.efer = EFER.LMA | EFER.LME | EFER.NXE | EFER.SCE
        cpu.pointee.xcr0 = XCR0.x87 | XCR0.SSE | XCR0.AVX
        cpu.pointee.cpl = 3
        cpu.pointee.rflags = RFLAGS.reserved1 | RFLAGS.IF
        put(Self.pml4, Self.pdpt | 7)
        put(Self.pdpt, Self.pd | 7)
        for pages in mapping { map(pages) }
        map(Pages(linear: Self.tables, size: 8192, isWritable: true, isExecutable: false), rights: 3)
        makeTables(ldt)
        makeInterruptTable()
        setSegments(cs: 0x33, ss: 0x2B)
        interpreter.updateMode()
    }

    /// Linux's GDT as far as user mode can tell, and the LDT.
    private func makeTables(_ ldt: [UInt64]) {
        let gdt = host(linear: Self.tables)
        let descriptors: [(Int, UInt64)] = [
            (1, 0x00CF_9B00_0000_FFFF), (2, 0x00AF_9B00_0000_FFFF), (3, 0x00CF_9300_0000_FFFF),
            (4, 0x00CF_FB00_0000_FFFF), (5, 0x00CF_F300_0000_FFFF), (6, 0x00AF_FB00_0000_FFFF),
            // Its limit is the number of the CPU.
            (15, 0x0040_F500_0000_0000),
        ]
        for (number, descriptor) in descriptors {
            gdt.storeBytes(of: descriptor, toByteOffset: number * 8, as: UInt64.self)
        }
        cpu.pointee.gdtr = davit_table_register(base: Self.tables, limit: 127)
        let local = host(linear: Self.ldt)
        for (number, descriptor) in ldt.enumerated() {
            local.storeBytes(of: descriptor, toByteOffset: number * 8, as: UInt64.self)
        }
        davit_cpu_segment(cpu)[Int(DAVIT_LDTR.rawValue)] = davit_segment(
            base: Self.ldt, limit: UInt32(ldt.count * 8 - 1), selector: 0x50, attributes: 0x82)
    }

    /// Gates as Linux has them: programs may use #BP and #OF. The handlers' addresses are their vectors, none has code.
    private func makeInterruptTable() {
        let table = host(linear: Self.idt)
        for vector in 0..<256 {
            let dpl: UInt64 = vector == 3 || vector == 4 ? 3 : 0
            let gate = UInt64(vector) | 0x10 << 16 | (0x8E | dpl << 5) << 40
            table.storeBytes(of: gate, toByteOffset: vector * 16, as: UInt64.self)
        }
        cpu.pointee.idtr = davit_table_register(base: Self.idt, limit: 4095)
        // RSP0, and an I/O permission map beyond the limit: none.
        let task = host(linear: Self.tss)
        task.storeBytes(of: UInt32(Self.handlerStack), toByteOffset: 4, as: UInt32.self)
        task.storeBytes(of: 104, toByteOffset: 102, as: UInt16.self)
        davit_cpu_segment(cpu)[Int(DAVIT_TR.rawValue)] = davit_segment(
            base: Self.tss, limit: 103, selector: 0x40, attributes: 0x8B)
    }

    /// Loads segment registers from the tables. FS and GS with a null selector have the bases given.
    package func setSegments(
        cs: UInt16, ss: UInt16, ds: UInt16 = 0, es: UInt16 = 0, fs: UInt16 = 0, gs: UInt16 = 0, fsBase: UInt64 = 0,
        gsBase: UInt64 = 0
    ) {
        let segments = davit_cpu_segment(cpu)
        segments[Int(DAVIT_CS.rawValue)] = segment(cs)
        segments[Int(DAVIT_SS.rawValue)] = segment(ss)
        segments[Int(DAVIT_DS.rawValue)] = segment(ds)
        segments[Int(DAVIT_ES.rawValue)] = segment(es)
        segments[Int(DAVIT_FS.rawValue)] = segment(fs)
        segments[Int(DAVIT_GS.rawValue)] = segment(gs)
        if fs & ~3 == 0 { segments[Int(DAVIT_FS.rawValue)].base = fsBase }
        if gs & ~3 == 0 { segments[Int(DAVIT_GS.rawValue)].base = gsBase }
        let attributes = segments[Int(DAVIT_CS.rawValue)].attributes
        cpu.pointee.code_size = attributes & 0x2000 != 0 ? 8 : attributes & 0x4000 != 0 ? 4 : 2
    }

    private func segment(_ selector: UInt16) -> davit_segment {
        guard selector & ~3 != 0 else { return davit_segment(base: 0, limit: 0, selector: selector, attributes: 0) }
        let table = selector & 4 != 0 ? Self.ldt : Self.tables
        let descriptor = host(linear: table + UInt64(selector & ~7)).load(as: UInt64.self)
        var limit = UInt32(truncatingIfNeeded: descriptor & 0xFFFF | descriptor >> 32 & 0xF_0000)
        if descriptor >> 55 & 1 != 0 { limit = limit << 12 | 0xFFF }
        return davit_segment(
            base: descriptor >> 16 & 0xFF_FFFF | (descriptor >> 56) << 24, limit: limit, selector: selector,
            attributes: UInt16(truncatingIfNeeded: descriptor >> 40) & 0xF0FF)
    }

    private func put(_ address: UInt64, _ entry: UInt64) {
        (memory.base + Int(address)).storeBytes(of: entry, as: UInt64.self)
    }

    private func get(_ address: UInt64) -> UInt64 {
        (memory.base + Int(address)).load(as: UInt64.self)
    }

    private func map(_ pages: Pages) {
        map(pages, rights: 5 | (pages.isWritable ? 2 : 0) | (pages.isExecutable ? 0 : 1 << 63))
    }

    private func map(_ pages: Pages, rights: UInt64) {
        for linear in stride(from: pages.linear, to: pages.linear + pages.size, by: 4096) {
            let directory = Self.pd + (linear >> 21 & 511) * 8
            if get(directory) == 0 { put(directory, takeFrame() | 7) }
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
        // Nobody asks for anything between the steps of a repeated instruction.
        davit_cpu_served(cpu, UInt32.max)
    }

    /// To be called before `cpu.xsave` is read.
    package func publishState() { interpreter.publishX87Pointers() }

    /// Fetches and carries out the instruction at RIP. On an exception RIP stays where it is.
    package func step() -> Outcome {
        var instruction = Instruction()
        do throws(GuestFault) {
            try interpreter.fetchSingle(into: &instruction)
            var next = cpu.pointee.rip &+ UInt64(instruction.length)
            if cpu.pointee.code_size != 8 { next &= 0xFFFF_FFFF }
            cpu.pointee.next_rip = next
            cpu.pointee.shadow = 0
            try interpreter.execute(instruction)
            cpu.pointee.rip = cpu.pointee.next_rip
            return Outcome(vector: cpu.pointee.cpl == 0 ? leaveHandler() : nil, errorCode: 0)
        } catch {
            return Outcome(vector: error.vector, errorCode: error.hasErrorCode ? error.errorCode : 0)
        }
    }

    /// Goes back from the handler that the instruction has entered to where its frame says. Returns the vector.
    private func leaveHandler() -> UInt8 {
        let vector = UInt8(truncatingIfNeeded: cpu.pointee.rip)
        let frame = host(linear: Self.handlerStack - 40)
        let segments = davit_cpu_segment(cpu)
        cpu.pointee.rip = frame.load(as: UInt64.self)
        segments[Int(DAVIT_CS.rawValue)] = segment(frame.load(fromByteOffset: 8, as: UInt16.self))
        cpu.pointee.rflags = frame.load(fromByteOffset: 16, as: UInt64.self)
        davit_cpu_gpr(cpu)[GeneralRegister.RSP] = frame.load(fromByteOffset: 24, as: UInt64.self)
        segments[Int(DAVIT_SS.rawValue)] = segment(frame.load(fromByteOffset: 32, as: UInt16.self))
        cpu.pointee.cpl = 3
        interpreter.updateMode()
        return vector
    }
}

/// Nothing answers.
private final class Silence: GuestIO {
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 { UInt32.max }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {}
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 { UInt64.max }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {}
}
