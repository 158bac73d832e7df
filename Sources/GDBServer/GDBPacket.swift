/// The framing of GDB's remote serial protocol (GDB manual, appendix E.1): `$data#checksum`, acknowledged by `+` or `-`.
public struct GDBPacketReader: Sendable {
    public enum Event: Equatable, Sendable {
        case packet([UInt8])
        /// A packet whose checksum is wrong, or which is longer than `maximumPacket`.
        case damaged
        /// The last packet is to be sent again.
        case resend
        /// Ctrl-C.
        case interrupt
    }

    /// Bytes between `$` and `#`.
    public static let maximumPacket = 0x4000

    private enum Place {
        case outside
        case inside
        case firstDigit
        case secondDigit
    }

    private var place = Place.outside
    private var data: [UInt8] = []
    private var sum: UInt8 = 0
    private var firstDigit: UInt8?
    private var isTooLong = false

    public init() {}

    /// What has come with these bytes, in order. Bytes outside of packets that mean nothing are passed over.
    public mutating func read(_ bytes: [UInt8]) -> [Event] { bytes.compactMap { read($0) } }

    private mutating func read(_ byte: UInt8) -> Event? {
        switch (place, byte) {
        case (.outside, 0x03): return .interrupt
        case (.outside, UInt8(ascii: "-")): return .resend
        case (.outside, UInt8(ascii: "$")), (.inside, UInt8(ascii: "$")):
            (place, data, sum, isTooLong) = (.inside, [], 0, false)
        case (.outside, _): break
        case (.inside, UInt8(ascii: "#")): place = .firstDigit
        case (.inside, _):
            sum &+= byte
            if data.count < Self.maximumPacket { data.append(byte) } else { isTooLong = true }
        case (.firstDigit, _):
            firstDigit = Hex.digit(byte)
            place = .secondDigit
        case (.secondDigit, _):
            place = .outside
            defer { data = [] }
            guard !isTooLong, let high = firstDigit, let low = Hex.digit(byte), high << 4 | low == sum else {
                return .damaged
            }
            return .packet(data)
        }
        return nil
    }
}

/// Packets as they are sent.
public enum GDBPacket {
    /// With `$`, `#` and checksum; bytes that the framing needs are escaped.
    public static func frame(_ data: [UInt8]) -> [UInt8] {
        var body: [UInt8] = []
        for byte in data {
            if [UInt8(ascii: "$"), UInt8(ascii: "#"), UInt8(ascii: "}"), UInt8(ascii: "*")].contains(byte) {
                body += [UInt8(ascii: "}"), byte ^ 0x20]
            } else {
                body.append(byte)
            }
        }
        return [UInt8(ascii: "$")] + body + [UInt8(ascii: "#")] + Hex.bytes([body.reduce(0, &+)])
    }
}

/// Hexadecimal digits as the protocol has them.
enum Hex {
    private static let digits = Array("0123456789abcdef".utf8)

    static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    /// A number of 1 to 16 digits, the highest first.
    static func number(_ text: some Collection<UInt8>) -> UInt64? {
        guard (1...16).contains(text.count) else { return nil }
        var value: UInt64 = 0
        for byte in text {
            guard let digit = digit(byte) else { return nil }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    /// Two digits for each byte.
    static func bytes(_ bytes: [UInt8]) -> [UInt8] { bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] } }

    /// Bytes of two digits each; nil if that is not what it is.
    static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 2 == 0 else { return nil }
        var result: [UInt8] = []
        result.reserveCapacity(text.count / 2)
        var high: UInt8?
        for byte in text {
            guard let digit = digit(byte) else { return nil }
            if let first = high {
                result.append(first << 4 | digit)
                high = nil
            } else {
                high = digit
            }
        }
        return result
    }
}
