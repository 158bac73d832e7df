extension Interpreter {
    /// Carries out one decoded instruction. `cpu.rip` is its address, `cpu.next_rip` the next one's; branches overwrite the latter.
    /// When it throws, registers and memory are as before (SDM vol. 3, 6.6), but for the parts of repeated string instructions done.
    func execute(_ instruction: borrowing Instruction) throws(GuestFault) {
        switch instruction.operation {
        case .vector, .x87, .vzero, .maskmov, .vmaskmov, .gather: try executeOnHost(instruction)
        default: try executeSystem(instruction)
        }
    }
}
