/// A value in a YAML text (YAML 1.1), with its place. Values are not typed: what a scalar means is for the reader to say.
public struct YAMLNode: Sendable {
    public struct Member: Sendable {
        public let name: String
        /// Where its name stands.
        public let line: Int
        public let value: YAMLNode
    }

    public enum Content: Sendable {
        /// Plain: written without quotes, as numbers and `true` are.
        case scalar(String, isPlain: Bool)
        case list([YAMLNode])
        /// No two have the same name.
        case map([Member])
    }

    /// Counted from 1.
    public let line: Int
    public let content: Content

    /// Nothing is written where a value could be.
    public var isEmpty: Bool {
        if case .scalar(let text, isPlain: true) = content {
            text.isEmpty || text == "~" || text == "null"
        } else {
            false
        }
    }
}

/// What is wrong with a YAML text, and on which line.
public struct YAMLError: Error, Equatable, Sendable {
    public let line: Int
    public let problem: String

    public init(line: Int, problem: String) { (self.line, self.problem) = (line, problem) }
}
