/// What host and agent send each other: a letter, a count, so many bytes. `agent.pl` says what each of them is.
enum GuestFrame {
    static let request = UInt8(ascii: "R")
    static let input = UInt8(ascii: "I")
    static let size = UInt8(ascii: "W")
    static let signal = UInt8(ascii: "S")
    static let output = UInt8(ascii: "O")
    static let errorOutput = UInt8(ascii: "E")
    static let credit = UInt8(ascii: "C")
    static let exit = UInt8(ascii: "X")
    static let failure = UInt8(ascii: "F")

    static let headerSize = 5
    /// What neither side sends more of in one frame, in bytes.
    static let maximumSize = 1 << 20

    static func bytes(_ kind: UInt8, _ contents: some Collection<UInt8>) -> [UInt8] {
        let count = UInt32(truncatingIfNeeded: contents.count)
        return [kind] + (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - $0 * 8)) } + contents
    }

    /// The first four bytes as a number, big-endian; nil if there are fewer.
    static func number(_ bytes: ArraySlice<UInt8>) -> UInt32? {
        guard bytes.count >= 4 else { return nil }
        return bytes.prefix(4).reduce(0) { $0 << 8 | UInt32($1) }
    }
}

/// Frames out of a stream of bytes, whatever pieces it comes in.
struct GuestFrameReader {
    private var bytes: [UInt8] = []
    private var start = 0

    /// The guest sends what no agent sends.
    struct Nonsense: Error {}

    mutating func append(_ more: some Collection<UInt8>) {
        if start > 0 {
            bytes.removeFirst(start)
            start = 0
        }
        bytes += more
    }

    /// The next whole frame; nil until more has come.
    mutating func next() throws(Nonsense) -> (kind: UInt8, contents: ArraySlice<UInt8>)? {
        guard bytes.count - start >= GuestFrame.headerSize,
            let count = GuestFrame.number(bytes[(start + 1)...])
        else { return nil }
        guard count <= GuestFrame.maximumSize else { throw Nonsense() }
        let end = start + GuestFrame.headerSize + Int(count)
        guard end <= bytes.count else { return nil }
        defer { start = end }
        return (bytes[start], bytes[(start + GuestFrame.headerSize)..<end])
    }
}
