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

    /// Not the guest's at all: a processor that stands in for another engine's leaves the instruction to that one.
    static var declined: GuestFault { GuestFault(unarchitectural: 0xFF) }

    private init(unarchitectural vector: UInt8) {
        self.vector = vector
        hasErrorCode = false
        errorCode = 0
    }

    static var invalidOpcode: GuestFault { GuestFault(.UD) }
    static var deviceNotAvailable: GuestFault { GuestFault(.NM) }
    static var divideError: GuestFault { GuestFault(.DE) }
    static var generalProtection: GuestFault { GuestFault(.GP, errorCode: 0) }
}
