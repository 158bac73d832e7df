extension Interpreter {
    /// MMX, SSE, AVX and x87 instructions: the host CPU carries out the very instruction on operands that were fetched for it.
    func executeOnHost(_ instruction: borrowing Instruction) throws(GuestFault) {
        throw .invalidOpcode
    }
}
