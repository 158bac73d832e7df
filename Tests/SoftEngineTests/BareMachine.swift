import CDavit
import GuestMemory
import MachineModel
import X86

@testable import SoftEngine

/// An interpreter on 1 MiB of RAM without paging, in a mode of choice with flat segments: tests run a few bytes of code on it.
final class BareMachine {
    enum Mode: UInt32 {
        case real = 2
        case protected32 = 4
        case long64 = 8
    }

    static let code: UInt64 = 0x1000
    static let stack: UInt64 = 0x8000
    static let data: UInt64 = 0x4000

    let interpreter: Interpreter
    let ports = RecordingPorts()
    let mode: Mode

    init(_ mode: Mode = .long64) throws {
        self.mode = mode
        interpreter = try Interpreter(memory: try GuestMemory(size: 1 << 20), io: ports)
        let cpu = interpreter.cpu
        cpu.pointee.rflags = RFLAGS.reserved1
        cpu.pointee.code_size = mode.rawValue
        cpu.pointee.cr0 = mode == .real ? CR0.ET : CR0.ET | CR0.PE
        if mode == .long64 { cpu.pointee.efer = EFER.LME | EFER.LMA }
        for i in 0..<6 {
            var segment = davit_segment()
            segment.limit = mode == .real ? 0xFFFF : 0xFFFF_FFFF
            segment.attributes = mode == .real ? 0x93 : i == 1 ? 0xC09B : 0xC093
            interpreter.segments[i] = segment
        }
        interpreter.updateMode()
        self[.RSP] = Self.stack
    }

    enum Register: Int {
        case RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15
    }

    subscript(_ register: Register) -> UInt64 {
        get { interpreter.gpr[register.rawValue] }
        set { interpreter.gpr[register.rawValue] = newValue }
    }

    var flags: UInt64 {
        get { interpreter.cpu.pointee.rflags }
        set { interpreter.cpu.pointee.rflags = newValue | RFLAGS.reserved1 }
    }

    /// CF PF AF ZF SF OF.
    var arithmeticFlags: UInt64 { flags & RFLAGS.arithmetic }

    /// Guest physical memory, which is linear memory here.
    subscript<Value: FixedWidthInteger & BitwiseCopyable>(_ address: UInt64, as type: Value.Type) -> Value {
        get { interpreter.memory.base.loadUnaligned(fromByteOffset: Int(address), as: type) }
        set { interpreter.memory.base.storeBytes(of: newValue, toByteOffset: Int(address), as: type) }
    }

    /// Carries out the one instruction that `bytes` are, at `code`. Returns where it goes on.
    @discardableResult
    func run(_ bytes: [UInt8]) throws(GuestFault) -> UInt64 {
        let decoder = Decoder(features: .all, behaviour: .amd)
        var instruction = Instruction()
        let outcome = bytes.withUnsafeBufferPointer {
            decoder.decode($0.baseAddress!, available: $0.count, codeSize: mode.rawValue, into: &instruction)
        }
        precondition(outcome == .decoded && Int(instruction.length) == bytes.count, "not one instruction: \(bytes)")
        interpreter.cpu.pointee.rip = Self.code
        interpreter.cpu.pointee.next_rip = Self.code + UInt64(bytes.count)
        try interpreter.execute(instruction)
        return interpreter.cpu.pointee.next_rip
    }

    /// The fault that an instruction raises; nil if it raises none.
    func fault(_ bytes: [UInt8]) -> GuestFault? {
        do throws(GuestFault) {
            try run(bytes)
            return nil
        } catch {
            return error
        }
    }

    var generalRegisters: [UInt64] { (0..<16).map { interpreter.gpr[$0] } }
}

/// Ports that note what is written and give `input` when read; devices in memory that note writes.
final class RecordingPorts: GuestIO, @unchecked Sendable {
    // Used by the test's own thread alone.
    var input: UInt32 = 0
    var written: [(port: UInt16, width: AccessWidth, value: UInt32)] = []
    var stored: [(address: UInt64, width: AccessWidth, value: UInt64)] = []

    func readPort(_ port: UInt16, width: AccessWidth) -> UInt32 { input }
    func writePort(_ port: UInt16, width: AccessWidth, value: UInt32) { written.append((port, width, value)) }
    func readMMIO(_ address: GuestPhysicalAddress, width: AccessWidth) -> UInt64 { UInt64(input) }
    func writeMMIO(_ address: GuestPhysicalAddress, width: AccessWidth, value: UInt64) {
        stored.append((address.rawValue, width, value))
    }
}
