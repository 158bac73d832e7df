/// Methods and the statements that ours have (ACPI 6.5, 20.2.5).
extension AML {
    /// `Method (path, argumentCount, NotSerialized)`.
    static func method(_ path: String, argumentCount: UInt8, _ statements: [AML]) -> AML {
        AML(opcode: [0x14], enclosing: name(path) + [argumentCount] + statements.flatMap(\.bytes))
    }

    /// `If (condition) { ... }`; the condition is a value.
    static func `if`(_ condition: AML, _ statements: [AML]) -> AML {
        AML(opcode: [0xA0], enclosing: condition.bytes + statements.flatMap(\.bytes))
    }

    static func `return`(_ value: AML) -> AML { AML([0xA4] + value.bytes) }

    /// Arg0 to Arg6.
    static func argument(_ number: UInt8) -> AML { AML([0x68 + number]) }

    static func path(_ path: String) -> AML { AML(name(path)) }

    static func equal(_ left: AML, _ right: AML) -> AML { AML([0x93] + left.bytes + right.bytes) }

    static func or(_ left: AML, _ right: AML, into target: AML) -> AML {
        AML([0x7D] + left.bytes + right.bytes + target.bytes)
    }

    /// `CreateDWordField (buffer, offset, field)`.
    static func dwordField(_ field: String, of buffer: AML, at offset: UInt64) -> AML {
        AML([0x8A] + buffer.bytes + integer(offset).bytes + name(field))
    }
}
