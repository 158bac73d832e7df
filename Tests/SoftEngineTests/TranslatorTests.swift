import CDavit
import GuestMemory
import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Answers every device access with ones.
private final class NoDevices: GuestIO {
    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 { UInt32(truncatingIfNeeded: width.mask) }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) {}
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 { width.mask }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {}
}

/// One small machine in 64-bit mode without paging, for programs that end with HLT or a fault.
private struct Bench {
    static let codeStart: UInt64 = 0x1_0000
    static let memorySize: UInt64 = 0x4_0000

    let interpreter: Interpreter
    let decoder = Decoder(features: .all, behaviour: .amd)
    let translated: TranslatedExecution?
    var memory: GuestMemory { interpreter.memory }

    init(isTranslated: Bool) throws {
        interpreter = try Interpreter(memory: try GuestMemory(size: Self.memorySize), io: NoDevices())
        let cpu = interpreter.cpu
        cpu.pointee.code_size = 8
        cpu.pointee.efer = EFER.LME | EFER.LMA
        cpu.pointee.cr0 = CR0.PE | CR0.NE
        cpu.pointee.cr4 = CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.OSXSAVE
        cpu.pointee.xcr0 = 7
        interpreter.updateMode()
        translated =
            isTranslated ? try TranslatedExecution(interpreter: interpreter, isShared: false) : nil
        // Divisions that fault do so on the host: its handler needs a stack, as emitted code has none.
        if let translated {
            _ = davit_signals_make_stack()
            #expect(translated.catchFaults())
        }
    }

    func load(_ program: [UInt8], seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let words = memory.base.assumingMemoryBound(to: UInt64.self)
        for i in 0..<Int(Self.memorySize / 8) { words[i] = generator.next() }
        try memory.write(bytes: program, at: GuestPhysicalAddress(Self.codeStart))
        interpreter.code.didWrite(range: 0..<Self.memorySize)
        let cpu = interpreter.cpu
        for i in 0..<16 {
            interpreter.gpr[i] = generator.next() % 4 == 0 ? generator.next() : generator.next() % 0x3_F000
        }
        interpreter.gpr[4] = 0x3_8000 + generator.next() % 64
        cpu.pointee.rflags = generator.next() & RFLAGS.arithmetic | RFLAGS.reserved1
        cpu.pointee.rip = Self.codeStart
        davit_cpu_segment(cpu)[4].base = generator.next() % 0x1000
        davit_cpu_segment(cpu)[5].base = generator.next() % 0x1000
    }

    /// The next instruction by the interpreter; returns false if it is HLT.
    func step() throws(GuestFault) -> Bool {
        let cpu = interpreter.cpu
        let bytes = memory.base + Int(cpu.pointee.rip)
        var instruction = Instruction()
        guard
            decoder.decode(bytes.assumingMemoryBound(to: UInt8.self), available: 15, codeSize: 8, into: &instruction)
                == .decoded
        else { return false }
        if instruction.operation == .hlt { return false }
        cpu.pointee.next_rip = cpu.pointee.rip &+ UInt64(instruction.length)
        try interpreter.execute(instruction)
        cpu.pointee.rip = cpu.pointee.next_rip
        return true
    }

    /// Runs to the end; returns the fault that ended it, if any.
    func run() -> GuestFault? {
        while true {
            if let translated, translated.run() == .goOn { continue }
            do throws(GuestFault) {
                if try !step() { return nil }
            } catch { return error }
        }
    }
}

/// The translator must do what the interpreter does.
@Suite(.serialized) struct TranslatorTests {
    private func compare(_ program: [UInt8], seed: UInt64, _ one: Bench, _ other: Bench) throws -> String? {
        try one.load(program, seed: seed)
        try other.load(program, seed: seed)
        let faults = (one.run(), other.run())
        if faults.0 != faults.1 { return "faults \(String(describing: faults.0)) and \(String(describing: faults.1))" }
        let (a, b) = (one.interpreter, other.interpreter)
        var difference: [String] = []
        for i in 0..<16 where a.gpr[i] != b.gpr[i] {
            difference.append("r\(i) \(String(a.gpr[i], radix: 16)) \(String(b.gpr[i], radix: 16))")
        }
        if a.cpu.pointee.rip != b.cpu.pointee.rip {
            difference.append("rip \(String(a.cpu.pointee.rip, radix: 16)) \(String(b.cpu.pointee.rip, radix: 16))")
        }
        if a.cpu.pointee.rflags != b.cpu.pointee.rflags {
            difference.append(
                "rflags \(String(a.cpu.pointee.rflags, radix: 16)) \(String(b.cpu.pointee.rflags, radix: 16))")
        }
        let words = (
            a.memory.base.assumingMemoryBound(to: UInt64.self), b.memory.base.assumingMemoryBound(to: UInt64.self)
        )
        for i in 0..<Int(Bench.memorySize / 8) where words.0[i] != words.1[i] {
            difference.append(
                "at \(String(i * 8, radix: 16)) \(String(words.0[i], radix: 16)) \(String(words.1[i], radix: 16))")
        }
        return difference.isEmpty ? nil : difference.joined(separator: ", ")
    }

    @Test func addsAndStops() throws {
        let bench = try Bench(isTranslated: true)
        // mov eax, 5; add rax, 7; mov [0x2000], rax; hlt
        try bench.load([0xB8, 5, 0, 0, 0, 0x48, 0x83, 0xC0, 7, 0x48, 0x89, 0x04, 0x25, 0, 0x20, 0, 0, 0xF4], seed: 1)
        #expect(bench.run() == nil)
        #expect(bench.interpreter.gpr[0] == 12)
        #expect(try bench.memory.read(UInt64.self, at: GuestPhysicalAddress(0x2000)) == 12)
        #expect(bench.translated?.statistics.units == 1)
    }

    @Test func randomProgramsEndLikeTheInterpreters() throws {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("TranslatorTests seed \(seed)")
        let one = try Bench(isTranslated: false)
        let other = try Bench(isTranslated: true)
        var sampler = OpcodeSampler(codeSize: 8, generator: SeededGenerator(seed: seed))
        let rows = OpcodeTable.shared.entries.dropFirst().filter(Self.isData)
        var failures = 0
        for round in 0..<20_000 where failures < 5 {
            var program: [UInt8] = []
            var pieces: [[UInt8]] = []
            for _ in 0..<Int.random(in: 1...12, using: &sampler.generator) {
                guard let row = rows.randomElement(using: &sampler.generator), let bytes = sampler.sample(row) else {
                    continue
                }
                var instruction = Instruction()
                guard one.decoder.decode(bytes, available: bytes.count, codeSize: 8, into: &instruction) == .decoded,
                    instruction.operation == row.operation
                else { continue }
                let piece = Array(bytes.prefix(Int(instruction.length)))
                // Now and then over the next one.
                if let last = pieces.last, last.count > 2, Int.random(in: 0..<4, using: &sampler.generator) == 0 {
                    pieces.insert(
                        [0x70 | UInt8.random(in: 0..<16, using: &sampler.generator), UInt8(last.count)],
                        at: pieces.count - 1)
                }
                pieces.append(piece)
            }
            program = pieces.flatMap { $0 } + [0xF4]
            if let difference = try compare(program, seed: seed &+ UInt64(round), one, other) {
                failures += 1
                let hex = program.map { String($0 + 0x100 as UInt16, radix: 16).dropFirst() }
                Issue.record("seed \(seed) round \(round): \(hex.joined(separator: " ")): \(difference)")
            }
        }
    }

    /// Works on registers and memory alone, and is not the host's part.
    private static func isData(_ row: OpcodeEntry) -> Bool {
        switch row.operation {
        case .add, .or, .adc, .sbb, .and, .sub, .xor, .cmp, .test, .inc, .dec, .neg, .not, .mul, .imul, .imul2, .div,
            .idiv, .rol,
            .ror, .rcl, .rcr, .shl, .shr, .sar, .shld, .shrd, .bt, .bts, .btr, .btc, .bsf, .bsr, .popcnt, .lzcnt,
            .tzcnt, .bswap,
            .adcx, .adox, .andn, .bextr, .blsr, .blsmsk, .blsi, .bzhi, .mulx, .pdep, .pext, .rorx, .sarx, .shlx, .shrx,
            .crc32,
            .mov, .movzx, .movsx, .movsxd, .movbe, .movnti, .lea, .xchg, .xadd, .cmpxchg, .cmpxchg8b, .cmpxchg16b, .cbw,
            .cwd,
            .cmov, .setcc, .push, .pop, .leave, .lahf, .sahf, .clc, .stc, .cmc, .nop:
            true
        default: false
        }
    }
}

extension UInt8 {
    fileprivate static func + (left: UInt8, right: UInt16) -> UInt16 { UInt16(left) &+ right }
}
