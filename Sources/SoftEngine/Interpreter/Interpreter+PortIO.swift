import CDavit
import MachineModel
import X86

// IN and OUT; INS and OUTS are with the strings.
extension Interpreter {
    @inline(never)
    func input(_ instruction: borrowing Instruction) throws(GuestFault) {
        let port = portNumber(instruction)
        let size = instruction.operandSize
        try checkIOPermission(port: port, size: size)
        writeRegister(0, size: size, rex: true, UInt64(io.readPort(port, width: Self.portWidth(size))))
    }

    @inline(never)
    func output(_ instruction: borrowing Instruction) throws(GuestFault) {
        let port = portNumber(instruction)
        let size = instruction.operandSize
        try checkIOPermission(port: port, size: size)
        let value = UInt32(truncatingIfNeeded: readRegister(0, size: size, rex: true))
        io.writePort(port, width: Self.portWidth(size), value: value)
    }

    private func portNumber(_ instruction: borrowing Instruction) -> UInt16 {
        instruction.form == .i
            ? UInt16(truncatingIfNeeded: instruction.immediate & 0xFF)
            : UInt16(truncatingIfNeeded: gpr[GeneralRegister.RDX])
    }

    /// `size` is 1, 2 or 4.
    @inline(always)
    static func portWidth(_ size: UInt8) -> AccessWidth { size == 4 ? .four : size == 2 ? .two : .one }
}
