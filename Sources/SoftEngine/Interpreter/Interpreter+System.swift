extension Interpreter {
    /// System instructions, far control transfers and segment loads.
    func executeSystem(_ instruction: borrowing Instruction) throws(GuestFault) {
        throw .invalidOpcode
    }
}
