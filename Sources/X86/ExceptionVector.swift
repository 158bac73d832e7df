/// Vectors of exceptions (Intel SDM vol. 3, table 6-1).
public enum ExceptionVector: UInt8, Sendable {
    case DE = 0
    case DB = 1
    case NMI = 2
    case BP = 3
    case OF = 4
    case BR = 5
    case UD = 6
    case NM = 7
    case DF = 8
    case TS = 10
    case NP = 11
    case SS = 12
    case GP = 13
    case PF = 14
    case MF = 16
    case AC = 17
    case MC = 18
    case XM = 19
}

/// Bits of the error code that a page fault pushes (SDM vol. 3, 4.7).
public enum PageFaultError {
    public static let present: UInt32 = 1 << 0
    public static let write: UInt32 = 1 << 1
    public static let user: UInt32 = 1 << 2
    public static let reserved: UInt32 = 1 << 3
    public static let fetch: UInt32 = 1 << 4
}
