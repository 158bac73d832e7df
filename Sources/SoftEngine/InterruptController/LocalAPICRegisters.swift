import Synchronization

// Registers of the local APIC: Intel SDM vol. 3, table 11-1 (xAPIC offsets) and table 11-6 (x2APIC MSRs).

/// A register's place: its offset in the xAPIC page divided by 16, which is also its MSR number less 0x800.
enum APICRegister {
    static let ID = 0x02
    static let version = 0x03
    static let TPR = 0x08
    static let APR = 0x09
    static let PPR = 0x0A
    static let EOI = 0x0B
    static let RRD = 0x0C
    static let LDR = 0x0D
    static let DFR = 0x0E
    static let SVR = 0x0F
    /// First of eight, 32 vectors each; TMR and IRR likewise.
    static let ISR = 0x10
    static let TMR = 0x18
    static let IRR = 0x20
    static let ESR = 0x28
    static let LVTCMCI = 0x2F
    static let ICR = 0x30
    /// The upper half of ICR; xAPIC only.
    static let ICRHigh = 0x31
    static let LVTTimer = 0x32
    static let LVTThermal = 0x33
    static let LVTPerformance = 0x34
    static let LVTLINT0 = 0x35
    static let LVTLINT1 = 0x36
    static let LVTError = 0x37
    static let initialCount = 0x38
    static let currentCount = 0x39
    static let divideConfiguration = 0x3E
    /// x2APIC only.
    static let selfIPI = 0x3F
    static let count = 0x40
}

/// IA32_APIC_BASE, MSR 0x1B (SDM vol. 3, 11.4.4 and 11.12.1).
enum APICBase {
    static let BSP: UInt64 = 1 << 8
    /// x2APIC mode.
    static let EXTD: UInt64 = 1 << 10
    /// Enabled.
    static let EN: UInt64 = 1 << 11
    static let resetAddress: UInt64 = 0xFEE0_0000
}

/// Spurious-interrupt vector register (11.9).
enum APICSVR {
    static let enable: UInt32 = 1 << 8
    static let focusDisable: UInt32 = 1 << 9
    static let suppressEOIBroadcast: UInt32 = 1 << 12
    static let writable: UInt32 = 0xFF | enable | focusDisable | suppressEOIBroadcast
}

/// Local vector table entries (11.5.1).
enum APICLVT {
    static let masked: UInt32 = 1 << 16
    static let timerPeriodic: UInt32 = 1 << 17
    static let timerTSCDeadline: UInt32 = 2 << 17
    static let timerMode: UInt32 = 3 << 17

    /// Bits that software may write, by register; zero for one that is no LVT entry.
    static func writable(_ register: Int) -> UInt32 {
        switch register {
        case APICRegister.LVTTimer: 0xFF | masked | timerMode
        case APICRegister.LVTThermal, APICRegister.LVTPerformance: 0x7FF | masked
        // Vector, delivery mode, polarity, trigger mode, mask.
        case APICRegister.LVTLINT0, APICRegister.LVTLINT1: 0x7FF | 1 << 13 | 1 << 15 | masked
        case APICRegister.LVTError: 0xFF | masked
        default: 0
        }
    }

    static func deliveryMode(_ entry: UInt32) -> APICDeliveryMode { APICDeliveryMode(rawValue: UInt8(entry >> 8 & 7))! }
}

/// Delivery modes in ICR, LVT entries and interrupt messages (11.6.1). All eight codes are named, so that three bits are always one.
enum APICDeliveryMode: UInt8 {
    case fixed = 0
    case lowestPriority = 1
    case SMI = 2
    /// "Remote read" long ago; reserved.
    case remoteRead = 3
    case NMI = 4
    case INIT = 5
    case startUp = 6
    case external = 7
}

/// Error status register (11.5.3).
enum APICESR {
    static let sendIllegalVector: UInt32 = 1 << 5
    static let receivedIllegalVector: UInt32 = 1 << 6
    static let illegalRegister: UInt32 = 1 << 7
}

/// The 64 registers as atomic words: other vCPUs and devices set IRR and TMR bits and read ID, LDR and SVR without a lock.
struct APICRegisterFile: ~Copyable {
    // Safe: allocated and initialized in `init`, `APICRegister.count` long, freed in `deinit`; indices are masked.
    private let words: UnsafeMutablePointer<Atomic<UInt32>>

    init() {
        words = .allocate(capacity: APICRegister.count)
        for i in 0..<APICRegister.count { (words + i).initialize(to: Atomic(0)) }
    }

    deinit {
        words.deinitialize(count: APICRegister.count)
        words.deallocate()
    }

    @inline(__always)
    subscript(register: Int) -> UInt32 {
        get { words[register & 63].load(ordering: .relaxed) }
        nonmutating set { words[register & 63].store(newValue, ordering: .relaxed) }
    }

    /// Sets bits and returns the register's earlier value; what was written before is seen by who sees the bits.
    @inline(__always) @discardableResult
    func insert(_ bits: UInt32, in register: Int) -> UInt32 {
        words[register & 63].bitwiseOr(bits, ordering: .sequentiallyConsistent).oldValue
    }

    @inline(__always) @discardableResult
    func remove(_ bits: UInt32, from register: Int) -> UInt32 {
        words[register & 63].bitwiseAnd(~bits, ordering: .sequentiallyConsistent).oldValue
    }

    /// Reads a register and leaves zero.
    func take(_ register: Int) -> UInt32 { words[register & 63].exchange(0, ordering: .sequentiallyConsistent) }

    // ISR, TMR and IRR: sets of vectors, named by their first register.

    /// Adds a vector to a set; false if it was there.
    @inline(__always) @discardableResult
    func insert(vector: UInt8, in set: Int) -> Bool {
        let bit: UInt32 = 1 << UInt32(vector & 31)
        return insert(bit, in: set &+ Int(vector >> 5)) & bit == 0
    }

    @inline(__always) @discardableResult
    func remove(vector: UInt8, from set: Int) -> Bool {
        let bit: UInt32 = 1 << UInt32(vector & 31)
        return remove(bit, from: set &+ Int(vector >> 5)) & bit != 0
    }

    @inline(__always)
    func contains(vector: UInt8, in set: Int) -> Bool {
        words[(set &+ Int(vector >> 5)) & 63].load(ordering: .acquiring) >> UInt32(vector & 31) & 1 != 0
    }

    /// The highest vector of a set; 0, which is never in one, if it is empty.
    @inline(__always)
    func highestVector(in set: Int) -> UInt8 {
        var i = 7
        while i >= 0 {
            let word = words[(set &+ i) & 63].load(ordering: .acquiring)
            if word != 0 { return UInt8(truncatingIfNeeded: i &* 32 &+ 31 &- word.leadingZeroBitCount) }
            i &-= 1
        }
        return 0
    }
}
