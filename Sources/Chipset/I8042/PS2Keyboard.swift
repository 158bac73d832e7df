/// A PS/2 keyboard as its controller sees it: commands in, answers and scan codes of set 2 out (IBM PS/2 Hardware
/// Interface Technical Reference, "Keyboard, 101- and 102-Key"). Left out: scan code sets 1 and 3, of which it only
/// remembers that they were chosen, and typematic repeat, which is up to whoever presses the keys.
struct PS2Keyboard: Equatable, Sendable {
    /// Bytes on their way to the controller.
    var queue: [UInt8] = []
    /// A command that waits for its parameter.
    var pending: UInt8?
    var scanCodeSet: UInt8 = 2
    var isScanning = true
    /// Scroll lock, num lock and caps lock from bit 0 up.
    var leds: UInt8 = 0
    /// What was sent last, for RESEND.
    var lastSent: UInt8 = 0

    static let queueLimit = 16

    private enum Command {
        static let setLEDs: UInt8 = 0xED
        static let echo: UInt8 = 0xEE
        static let scanCodeSet: UInt8 = 0xF0
        static let identify: UInt8 = 0xF2
        static let setTypematic: UInt8 = 0xF3
        static let enable: UInt8 = 0xF4
        static let disable: UInt8 = 0xF5
        static let setDefaults: UInt8 = 0xF6
        /// Key types of scan code set 3.
        static let keyTypes: ClosedRange<UInt8> = 0xF7...0xFD
        static let resend: UInt8 = 0xFE
        static let reset: UInt8 = 0xFF
    }

    private static let acknowledge: UInt8 = 0xFA
    private static let again: UInt8 = 0xFE
    private static let selfTestPassed: UInt8 = 0xAA
    /// A keyboard of the MF2 kind.
    private static let identity: [UInt8] = [0xAB, 0x83]

    static func takesParameter(_ command: UInt8) -> Bool {
        command == Command.setLEDs || command == Command.scanCodeSet || command == Command.setTypematic
    }

    /// The controller sends a byte. Unsent bytes are dropped, as a keyboard does when it is spoken to.
    mutating func receive(_ byte: UInt8) {
        queue.removeAll(keepingCapacity: true)
        if let command = pending {
            pending = nil
            // A command in a parameter's place is a command.
            if byte < Command.setLEDs {
                take(parameter: byte, of: command)
                return
            }
        }
        switch byte {
        case _ where Self.takesParameter(byte):
            pending = byte
            queue = [Self.acknowledge]
        case Command.echo:
            queue = [Command.echo]
        case Command.identify:
            queue = [Self.acknowledge] + Self.identity
        case Command.enable:
            isScanning = true
            queue = [Self.acknowledge]
        case Command.disable, Command.setDefaults:
            setDefaults()
            isScanning = byte == Command.setDefaults
            queue = [Self.acknowledge]
        case Command.keyTypes:
            queue = [Self.acknowledge]
        case Command.resend:
            queue = [lastSent]
        case Command.reset:
            setDefaults()
            isScanning = true
            leds = 0
            queue = [Self.acknowledge, Self.selfTestPassed]
        default:
            queue = [Self.again]
        }
    }

    private mutating func take(parameter: UInt8, of command: UInt8) {
        queue = [Self.acknowledge]
        switch command {
        case Command.setLEDs:
            leds = parameter & 0x07
        case Command.scanCodeSet:
            if parameter == 0 {
                queue.append(scanCodeSet)
            } else if parameter <= 3 {
                scanCodeSet = parameter
            } else {
                queue = [Self.again]
            }
        default:
            break
        }
    }

    private mutating func setDefaults() {
        scanCodeSet = 2
        pending = nil
    }

    /// Scan codes of set 2 from someone at the keys. All or none of them fit.
    mutating func press(_ scanCodes: [UInt8]) -> Bool {
        guard isScanning, scanCodes.count <= Self.queueLimit - queue.count else { return false }
        queue += scanCodes
        return true
    }

    mutating func takeNext() -> UInt8? {
        guard !queue.isEmpty else { return nil }
        lastSent = queue.removeFirst()
        return lastSent
    }

    /// What the controller makes of bytes of set 2 while it translates: set 1, for codes below 0x80.
    static let translation: [UInt8] = [
        0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
        0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
        0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
        0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
        0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
        0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
    ]
}
