import CYAML

extension YAMLNode {
    /// Reads a text of one document. Anchors, aliases and merge keys (`<<`) are followed; tags say nothing.
    public init(parsing text: [UInt8]) throws(YAMLError) {
        var reader = YAMLReader()
        self = try reader.read(text)
    }
}

/// Makes a tree of libyaml's events.
private struct YAMLReader {
    private static let maximumDepth = 32

    private var parser = yaml_parser_t()
    private var anchors: [String: YAMLNode] = [:]

    mutating func read(_ text: [UInt8]) throws(YAMLError) -> YAMLNode {
        guard yaml_parser_initialize(&parser) != 0 else {
            throw YAMLError(line: 1, problem: "there is no memory for it")
        }
        defer { yaml_parser_delete(&parser) }
        // Safe: the parser reads the text only while this function runs, and the copy lives until it returns.
        let copy = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: text.count)
        defer { copy.deallocate() }
        _ = copy.initialize(from: text)
        yaml_parser_set_input_string(&parser, copy.baseAddress, copy.count)
        yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING)
        var root: YAMLNode?
        while true {
            let event = try next(text)
            switch event.type {
            case YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT, YAML_DOCUMENT_END_EVENT: continue
            case YAML_STREAM_END_EVENT:
                guard let root else { throw YAMLError(line: 1, problem: "the file is empty") }
                return root
            default:
                guard root == nil else {
                    throw YAMLError(line: event.line, problem: "a second document begins here; leave one")
                }
                root = try node(event, text, depth: 0)
            }
        }
    }

    /// What is used of an event.
    private struct Event {
        let type: yaml_event_type_t
        let line: Int
        var anchor: String?
        var text = ""
        var isPlain = false
    }

    private mutating func next(_ text: [UInt8]) throws(YAMLError) -> Event {
        var event = yaml_event_t()
        guard yaml_parser_parse(&parser, &event) != 0 else { throw failure(text) }
        defer { yaml_event_delete(&event) }
        var result = Event(type: event.type, line: Int(event.start_mark.line) + 1)
        // Safe: libyaml says by the type which member of the union is set; its strings end with a zero byte, a scalar's has a length.
        switch event.type {
        case YAML_SCALAR_EVENT:
            let scalar = event.data.scalar
            result.anchor = Self.string(scalar.anchor)
            result.text = String(
                decoding: UnsafeBufferPointer(start: scalar.value, count: scalar.length), as: UTF8.self)
            result.isPlain = scalar.style == YAML_PLAIN_SCALAR_STYLE
        case YAML_SEQUENCE_START_EVENT: result.anchor = Self.string(event.data.sequence_start.anchor)
        case YAML_MAPPING_START_EVENT: result.anchor = Self.string(event.data.mapping_start.anchor)
        case YAML_ALIAS_EVENT: result.anchor = Self.string(event.data.alias.anchor)
        default: break
        }
        return result
    }

    private static func string(_ text: UnsafeMutablePointer<UInt8>?) -> String? { text.map { String(cString: $0) } }

    private func failure(_ text: [UInt8]) -> YAMLError {
        let problem = parser.problem.map { String(cString: $0) } ?? "this is not YAML"
        // What is wrong with the bytes themselves has a place among them, and no line.
        guard parser.error == YAML_READER_ERROR else {
            return YAMLError(line: Int(parser.problem_mark.line) + 1, problem: problem)
        }
        let newlines = text.prefix(Int(parser.problem_offset)).count { $0 == UInt8(ascii: "\n") }
        return YAMLError(line: newlines + 1, problem: problem)
    }

    private mutating func node(_ event: Event, _ text: [UInt8], depth: Int) throws(YAMLError) -> YAMLNode {
        guard depth < Self.maximumDepth else { throw YAMLError(line: event.line, problem: "this is nested too deeply") }
        let content: YAMLNode.Content
        switch event.type {
        case YAML_ALIAS_EVENT:
            guard let node = anchors[event.anchor ?? ""] else {
                throw YAMLError(line: event.line, problem: "there is no anchor '&\(event.anchor ?? "")' before this")
            }
            return YAMLNode(line: event.line, content: node.content)
        case YAML_SCALAR_EVENT: content = .scalar(event.text, isPlain: event.isPlain)
        case YAML_SEQUENCE_START_EVENT:
            var elements: [YAMLNode] = []
            while case let element = try next(text), element.type != YAML_SEQUENCE_END_EVENT {
                elements.append(try node(element, text, depth: depth + 1))
            }
            content = .list(elements)
        default: content = .map(try members(text, depth: depth))
        }
        let node = YAMLNode(line: event.line, content: content)
        if let anchor = event.anchor { anchors[anchor] = node }
        return node
    }

    private mutating func members(_ text: [UInt8], depth: Int) throws(YAMLError) -> [YAMLNode.Member] {
        var members: [YAMLNode.Member] = []
        var merged: [YAMLNode.Member] = []
        var names: Set<String> = []
        while case let name = try next(text), name.type != YAML_MAPPING_END_EVENT {
            guard name.type == YAML_SCALAR_EVENT else {
                throw YAMLError(line: name.line, problem: "a name is expected here, with a colon behind it")
            }
            let value = try node(try next(text), text, depth: depth + 1)
            if name.text == "<<" && name.isPlain {
                merged += try Self.merge(value)
                continue
            }
            guard names.insert(name.text).inserted else {
                throw YAMLError(line: name.line, problem: "'\(name.text)' is here for the second time; leave one")
            }
            members.append(YAMLNode.Member(name: name.text, line: name.line, value: value))
        }
        for member in merged where names.insert(member.name).inserted { members.append(member) }
        return members
    }

    /// The maps whose members stand in for those that are missing (yaml.org/type/merge).
    private static func merge(_ value: YAMLNode) throws(YAMLError) -> [YAMLNode.Member] {
        let sources = if case .list(let elements) = value.content { elements } else { [value] }
        var members: [YAMLNode.Member] = []
        for source in sources {
            guard case .map(let more) = source.content else {
                throw YAMLError(line: value.line, problem: "'<<' takes maps, by aliases such as '*common'")
            }
            members += more
        }
        return members
    }
}
