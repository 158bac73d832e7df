import X86

/// An exception on its way to the guest, raised in mid-instruction. Nothing of the instruction has been committed.
struct GuestFault: Error, BitwiseCopyable, Equatable {
    var vector: UInt8
    var hasErrorCode: Bool
    var errorCode: UInt32

    init(_ vector: ExceptionVector) {
        self.vector = vector.rawValue
        self.hasErrorCode = false
        self.errorCode = 0
    }

    init(_ vector: ExceptionVector, errorCode: UInt32) {
        self.vector = vector.rawValue
        self.hasErrorCode = true
        self.errorCode = errorCode
    }

    static var invalidOpcode: GuestFault { GuestFault(.UD) }
    static var deviceNotAvailable: GuestFault { GuestFault(.NM) }
    static var divideError: GuestFault { GuestFault(.DE) }
    static var generalProtection: GuestFault { GuestFault(.GP, errorCode: 0) }
}
