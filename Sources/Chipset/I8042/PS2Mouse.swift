/// A PS/2 mouse with two buttons that nobody moves (IBM PS/2 Hardware Interface Technical Reference, "Mouse"). It
/// answers every command, so that drivers find what firmware tables announce.
struct PS2Mouse: Equatable, Sendable {
    /// Bytes on their way to the controller.
    var queue: [UInt8] = []
    /// A command that waits for its parameter.
    var pending: UInt8?
    /// Reports per second.
    var sampleRate: UInt8 = 100
    /// Counts per millimetre, as a power of two.
    var resolution: UInt8 = 2
    var isScaling = false
    var isReporting = false
    var isRemote = false
    /// Whatever comes in goes back.
    var isWrapping = false
    /// What was sent last, for RESEND.
    var lastSent: UInt8 = 0

    static let queueLimit = 16

    private enum Command {
        static let resetScaling: UInt8 = 0xE6
        static let setScaling: UInt8 = 0xE7
        static let setResolution: UInt8 = 0xE8
        static let status: UInt8 = 0xE9
        static let streamMode: UInt8 = 0xEA
        static let readData: UInt8 = 0xEB
        static let resetWrapMode: UInt8 = 0xEC
        static let wrapMode: UInt8 = 0xEE
        static let remoteMode: UInt8 = 0xF0
        static let identify: UInt8 = 0xF2
        static let setSampleRate: UInt8 = 0xF3
        static let enable: UInt8 = 0xF4
        static let disable: UInt8 = 0xF5
        static let setDefaults: UInt8 = 0xF6
        static let resend: UInt8 = 0xFE
        static let reset: UInt8 = 0xFF
    }

    private static let acknowledge: UInt8 = 0xFA
    private static let again: UInt8 = 0xFE
    private static let selfTestPassed: UInt8 = 0xAA
    private static let identity: UInt8 = 0x00
    /// No button, no movement; bit 3 is always one.
    private static let report: [UInt8] = [0x08, 0, 0]

    static func takesParameter(_ command: UInt8) -> Bool {
        command == Command.setResolution || command == Command.setSampleRate
    }

    /// The controller sends a byte. Unsent bytes are dropped.
    mutating func receive(_ byte: UInt8) {
        queue = [Self.acknowledge]
        if isWrapping, byte != Command.reset, byte != Command.resetWrapMode {
            queue = [byte]
            return
        }
        if let command = pending {
            pending = nil
            if command == Command.setResolution {
                resolution = byte & 0x03
            } else {
                sampleRate = byte
            }
            return
        }
        switch byte {
        case Command.resetScaling: isScaling = false
        case Command.setScaling: isScaling = true
        case _ where Self.takesParameter(byte): pending = byte
        case Command.status: queue += [status, resolution, sampleRate]
        case Command.streamMode: isRemote = false
        case Command.readData: queue += Self.report
        case Command.resetWrapMode: isWrapping = false
        case Command.wrapMode: isWrapping = true
        case Command.remoteMode: isRemote = true
        case Command.identify: queue.append(Self.identity)
        case Command.enable: isReporting = true
        case Command.disable: isReporting = false
        case Command.setDefaults: self = PS2Mouse(queue: queue)
        case Command.resend: queue = [lastSent]
        case Command.reset: self = PS2Mouse(queue: [Self.acknowledge, Self.selfTestPassed, Self.identity])
        default: queue = [Self.again]
        }
    }

    private var status: UInt8 { (isRemote ? 0x40 : 0) | (isReporting ? 0x20 : 0) | (isScaling ? 0x10 : 0) }

    mutating func takeNext() -> UInt8? {
        guard !queue.isEmpty else { return nil }
        lastSent = queue.removeFirst()
        return lastSent
    }
}
