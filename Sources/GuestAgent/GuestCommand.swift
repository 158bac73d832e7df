/// A program that is to run in the guest.
public struct GuestCommand: Equatable, Sendable {
    /// The program, which is looked for along PATH, and its arguments; none for the user's login shell.
    public var words: [String]
    /// NAME=VALUE.
    public var environment: [String] = []
    /// nil for the user's home.
    public var directory: String?
    public var user = "root"
    /// The kind of terminal that the program gets, such as `xterm`; nil for none.
    public var terminal: String?
    public var terminalSize = TerminalSize(rows: 24, columns: 80)

    public init(_ words: [String]) { self.words = words }

    private static let version = 1

    /// The agent's words for it; nil if one of them has a zero byte, which no program can be given.
    var request: [UInt8]? {
        var strings = ["version=\(Self.version)", "user=\(user)"]
        if let terminal { strings += ["terminal=\(terminal)", "size=\(terminalSize)"] }
        if let directory { strings.append("directory=\(directory)") }
        strings += environment.map { "env=\($0)" } + [""] + words
        guard !strings.contains(where: { $0.utf8.contains(0) }) else { return nil }
        return strings.flatMap { Array($0.utf8) + [0] }
    }
}

/// In characters.
public struct TerminalSize: Equatable, Sendable, CustomStringConvertible {
    public var rows: UInt16
    public var columns: UInt16

    public init(rows: UInt16, columns: UInt16) { (self.rows, self.columns) = (rows, columns) }

    public var description: String { "\(rows) \(columns)" }
}
