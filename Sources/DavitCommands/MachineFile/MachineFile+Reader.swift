import MachineStore
import YAML

extension MachineFile {
    /// Makes descriptions of what was read; whatever is not as it should be is said with its line.
    static func machines(in root: YAMLNode) throws(YAMLError) -> [Description] {
        var machines: [Description] = []
        let top = try map(root, "a davit.yaml begins with 'machines:'")
        for member in top where member.name != "machines" {
            throw YAMLError(line: member.line, problem: "'\(member.name)' is not known here; there is only 'machines'")
        }
        guard let list = top.first else { throw YAMLError(line: root.line, problem: "'machines:' is missing") }
        for member in try map(
            list.value, "below 'machines:' stand names of machines, each with what it is to be below it")
        {
            do throws(StoreError) { try MachineStore.check(name: member.name) } catch {
                throw YAMLError(line: member.line, problem: error.description)
            }
            machines.append(try machine(member))
        }
        guard !machines.isEmpty else {
            throw YAMLError(line: list.line, problem: "there is no machine below 'machines:'")
        }
        return machines
    }

    private static func machine(_ member: YAMLNode.Member) throws(YAMLError) -> Description {
        var machine = Description(name: member.name, line: member.line)
        let members = try map(
            member.value, "below machine '\(member.name)' stands what it is to be, such as 'image: debian'")
        for member in members {
            guard let key = MachineFileKey.all.first(where: { $0.name == member.name }) else {
                throw YAMLError(
                    line: member.line,
                    problem:
                        "'\(member.name)' is not known; choose from: \(MachineFileKey.all.map(\.name).joined(separator: ", "))"
                )
            }
            switch key.kind {
            case .text:
                let text = try text(member.value, key)
                switch key.name {
                case MachineFileKey.image: machine.image = text
                case MachineFileKey.cloudInit: machine.cloudInit = text
                default: machine.add(key, text, member.value.line)
                }
            case .texts:
                let values = if case .list(let elements) = member.value.content { elements } else { [member.value] }
                for value in values { machine.add(key, try text(value, key), value.line) }
            case .environment: machine.environment = try environment(member.value, key)
            case .flag:
                guard case .scalar(let text, isPlain: true) = member.value.content, text == "true" || text == "false"
                else {
                    throw YAMLError(line: member.value.line, problem: "'\(key.name)' is true or false")
                }
                if text == "true", let flag = key.flag { machine.flags.append(([flag], member.value.line)) }
            }
        }
        return machine
    }

    private static func environment(_ node: YAMLNode, _ key: MachineFileKey) throws(YAMLError) -> [String] {
        var variables: [String] = []
        switch node.content {
        case .map(let members):
            for member in members { variables.append("\(member.name)=\(try text(member.value, key))") }
        case .list(let elements): for element in elements { variables.append(try text(element, key)) }
        case .scalar: variables.append(try text(node, key))
        }
        for variable in variables where !variable.contains("=") || variable.hasPrefix("=") {
            throw YAMLError(
                line: node.line, problem: "'\(variable)' in '\(key.name)' is no variable; write NAME: VALUE")
        }
        return variables
    }

    private static func map(_ node: YAMLNode, _ expected: String) throws(YAMLError) -> [YAMLNode.Member] {
        guard case .map(let members) = node.content else { throw YAMLError(line: node.line, problem: expected) }
        return members
    }

    private static func text(_ node: YAMLNode, _ key: MachineFileKey) throws(YAMLError) -> String {
        guard case .scalar(let text, _) = node.content else {
            throw YAMLError(
                line: node.line, problem: "'\(key.name)' has a single value in this place, and this is several")
        }
        guard !node.isEmpty, !text.isEmpty else {
            throw YAMLError(line: node.line, problem: "'\(key.name)' has no value")
        }
        guard !text.utf8.contains(0) else {
            throw YAMLError(line: node.line, problem: "'\(key.name)' has a zero byte in it")
        }
        return text
    }
}

extension MachineFile.Description {
    fileprivate mutating func add(_ key: MachineFileKey, _ text: String, _ line: Int) {
        if let flag = key.flag { flags.append(([flag, text], line)) }
    }
}
