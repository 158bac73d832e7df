/// What a user asks of the monitor, not of the guest, by a key after Ctrl-A.
public enum ConsoleCommand: Equatable, Sendable {
    case end
    /// Leave the machine running, where it can do without this terminal.
    case detach
    case help
    /// A break condition on the serial line, which Linux takes for Magic SysRq.
    case sendBreak
}

/// Takes the keys that are meant for the monitor out of what a user types: Ctrl-A and one key more.
public struct EscapeSequence: Sendable {
    static let prefix: UInt8 = 0x01
    private let canDetach: Bool

    /// `canDetach`: the machine is another process.
    public init(canDetach: Bool = false) { self.canDetach = canDetach }

    public var help: String {
        """
        Ctrl-A x       \(canDetach ? "pull the plug: " : "end Davit; ")the guest is cut off
        \(canDetach ? "Ctrl-A d       leave the console; the guest goes on\n" : "")\
        Ctrl-A b       send a break (Linux: Magic SysRq)
        Ctrl-A Ctrl-A  send Ctrl-A
        Ctrl-A h       this help

        """
    }

    private var isPrefixed = false

    /// One typed byte: what of it goes to the guest, and what is to be done.
    public mutating func take(_ byte: UInt8) -> (guest: UInt8?, command: ConsoleCommand?) {
        guard isPrefixed else {
            isPrefixed = byte == Self.prefix
            return (isPrefixed ? nil : byte, nil)
        }
        isPrefixed = false
        switch byte {
        case Self.prefix, UInt8(ascii: "a"): return (Self.prefix, nil)
        case UInt8(ascii: "x"): return (nil, .end)
        case UInt8(ascii: "h"), UInt8(ascii: "?"): return (nil, .help)
        case UInt8(ascii: "d") where canDetach: return (nil, .detach)
        case UInt8(ascii: "b"): return (nil, .sendBreak)
        default: return (nil, nil)
        }
    }
}
