// The 8254's control word and read-back command (Intel 8254 data sheet, September 1993, figures 7, 10 and 12), and port 0x61
// (Intel 82371SB, 2.5.3.1, NMI status and control).

enum PITControl {
    /// Counter number of the read-back command.
    static let readBack: UInt8 = 3

    static func counter(_ word: UInt8) -> UInt8 { word >> 6 }
    /// RW1 RW0: how the two bytes of a count are transferred; 0 is the counter latch command.
    static func access(_ word: UInt8) -> UInt8 { word >> 4 & 3 }
    /// Modes 6 and 7 are 2 and 3.
    static func mode(_ word: UInt8) -> UInt8 {
        let mode = word >> 1 & 7
        return mode > 5 ? mode - 4 : mode
    }
    static func isBCD(_ word: UInt8) -> Bool { word & 1 != 0 }
}

/// Values of RW1 RW0.
enum PITAccess {
    static let latch: UInt8 = 0
    static let low: UInt8 = 1
    static let high: UInt8 = 2
    static let word: UInt8 = 3
}

/// The read-back command's low bits; the two COUNT# and STATUS# are active low.
enum PITReadBack {
    static let noCount: UInt8 = 1 << 5
    static let noStatus: UInt8 = 1 << 4
    static func selects(_ word: UInt8, _ counter: Int) -> Bool { word >> UInt8(1 + counter & 3) & 1 != 0 }
}

enum PITStatus {
    static let output: UInt8 = 1 << 7
    static let nullCount: UInt8 = 1 << 6
}

/// Port 0x61.
enum SystemControlB {
    static let gate2: UInt8 = 1 << 0
    static let speaker: UInt8 = 1 << 1
    /// Gate, speaker, and the two NMI disable bits, which are kept but gate nothing: there is no source.
    static let writable: UInt8 = 0x0F
    /// Toggles with each refresh request, every 15 microseconds.
    static let refresh: UInt8 = 1 << 4
    static let output2: UInt8 = 1 << 5
}
