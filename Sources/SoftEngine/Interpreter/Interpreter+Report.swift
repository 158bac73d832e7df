import CDavit
import GuestMemory
import X86

// What is said of a guest that cannot go on, and what `--trace` prints.
extension Interpreter {
    /// Branches that the report shows.
    static let branchRingSize = 16

    @inline(__always)
    func recordBranch(from: UInt64, to: UInt64) {
        let i = system.pointee.branchCount & (Self.branchRingSize &- 1)
        branches[2 &* i] = from
        branches[2 &* i &+ 1] = to
        system.pointee.branchCount &+= 1
    }

    /// Code bytes and last branches.
    func report() -> String {
        func hex(_ value: UInt64) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, 16 - text.count)) + text
        }
        var lines = ["code " + codeBytes(16)]
        let count = min(system.pointee.branchCount, Self.branchRingSize)
        for back in 0..<count {
            let i = (system.pointee.branchCount &- 1 &- back) & (Self.branchRingSize - 1)
            lines.append("branch \(hex(branches[2 * i])) -> \(hex(branches[2 * i + 1]))")
        }
        return lines.joined(separator: "\n")
    }

    /// The bytes at the instruction pointer, as far as they can be read, without any effect on the guest but accessed bits.
    func codeBytes(_ count: Int) -> String {
        var words: [String] = []
        let cr2 = cpu.pointee.cr2
        defer { cpu.pointee.cr2 = cr2 }
        for i in 0..<count {
            do throws(GuestFault) {
                let linear = try fetchAddress(cpu.pointee.rip &+ UInt64(i))
                guard let host = try fetchPointer(linear) else { break }
                let byte = host.load(as: UInt8.self)
                words.append((byte < 16 ? "0" : "") + String(byte, radix: 16))
            } catch { break }
        }
        return words.isEmpty ? "(not readable)" : words.joined(separator: " ")
    }

    var tracesInstructions: Bool { trace.contains(.instructions) }

    func traceInstruction(_ instruction: borrowing Instruction) {
        guard tracesInstructions else { return }
        log(
            "\(apicID): \(String(cpu.pointee.rip, radix: 16)) \(instruction.operation) [\(codeBytes(Int(instruction.length)))]"
        )
    }

    func traceInterrupt(_ vector: UInt8) {
        guard trace.contains(.interrupts) else { return }
        log("\(apicID): interrupt 0x\(String(vector, radix: 16)) at \(String(cpu.pointee.rip, radix: 16))")
    }

    func traceException(_ fault: GuestFault) {
        if trace.contains(.exceptions) {
            let code = fault.hasErrorCode ? " error 0x\(String(fault.errorCode, radix: 16))" : ""
            let address =
                fault.vector == ExceptionVector.PF.rawValue ? " cr2 \(String(cpu.pointee.cr2, radix: 16))" : ""
            log("\(apicID): exception \(fault.vector)\(code)\(address) at \(String(cpu.pointee.rip, radix: 16))")
        }
        // An opcode that is not known may be a defect here; UD2 and its like are the guest's own.
        if fault.vector == ExceptionVector.UD.rawValue { reportUnknownInstruction() }
    }

    /// Says which instruction raised #UD, a few times and no more.
    private func reportUnknownInstruction() {
        guard system.pointee.unknownInstructions < 8 else { return }
        let bytes = codeBytes(15)
        guard !bytes.hasPrefix("0f 0b"), !bytes.hasPrefix("0f b9"), !bytes.hasPrefix("0f ff") else { return }
        system.pointee.unknownInstructions += 1
        log(
            "undefined instruction at \(String(cpu.pointee.rip, radix: 16)), code size \(cpu.pointee.code_size): \(bytes)"
        )
    }
}
