/// A piece of ACPI Machine Language: an object, a statement or a value (ACPI 6.5, section 20.2).
///
/// Pieces are made by the functions below, which are named for what ASL calls them, and nest as ASL does. Names and paths are ours, so
/// a wrong one is a defect and traps.
public struct AML: Sendable {
    public let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    init(opcode: [UInt8], enclosing contents: [UInt8]) {
        bytes = opcode + Self.packageLength(contents.count) + contents
    }

    // MARK: Objects

    /// Opens a scope that exists, such as `\_SB`.
    public static func scope(_ path: String, _ contents: [AML]) -> AML {
        AML(opcode: [0x10], enclosing: name(path) + join(contents))
    }

    public static func device(_ path: String, _ contents: [AML]) -> AML {
        AML(opcode: [0x5B, 0x82], enclosing: name(path) + join(contents))
    }

    /// `Name (path, value)`.
    public static func named(_ path: String, _ value: AML) -> AML { AML([0x08] + name(path) + value.bytes) }

    // MARK: Values

    public static func integer(_ value: UInt64) -> AML {
        switch value {
        case 0: AML([0x00])
        case 1: AML([0x01])
        case 2...0xFF: AML([0x0A] + little(value, 1))
        case 0x100...0xFFFF: AML([0x0B] + little(value, 2))
        case 0x1_0000...0xFFFF_FFFF: AML([0x0C] + little(value, 4))
        default: AML([0x0E] + little(value, 8))
        }
    }

    /// ASCII only.
    public static func string(_ text: String) -> AML {
        precondition(text.utf8.allSatisfy { $0 > 0 && $0 < 0x80 }, "an AML string is ASCII")
        return AML([0x0D] + text.utf8 + [0])
    }

    public static func buffer(_ contents: [UInt8]) -> AML {
        AML(opcode: [0x11], enclosing: integer(UInt64(contents.count)).bytes + contents)
    }

    /// Up to 255 elements.
    public static func package(_ elements: [AML]) -> AML {
        AML(opcode: [0x12], enclosing: [UInt8(elements.count)] + join(elements))
    }

    /// A Plug and Play id of three letters and four hexadecimal digits, compressed to a number (`EisaId`).
    public static func eisaID(_ id: String) -> AML {
        let letters = Array(id.utf8.prefix(3))
        guard letters.count == 3, letters.allSatisfy({ (0x41...0x5A).contains($0) }), id.utf8.count == 7,
            let product = UInt16(id.dropFirst(3), radix: 16)
        else { preconditionFailure("no EISA id: \(id)") }
        let maker = letters.reduce(UInt16(0)) { $0 << 5 | UInt16($1 - 0x40) }
        return integer(UInt64((UInt32(maker) << 16 | UInt32(product)).byteSwapped))
    }

    /// Resource descriptors with their end tag, as `_CRS` has them.
    public static func resources(_ descriptors: [ResourceDescriptor]) -> AML {
        let endTag: [UInt8] = [0x79, 0x00]
        return buffer(descriptors.flatMap(\.bytes) + endTag)
    }

    // MARK: Encoding

    private static func join(_ pieces: [AML]) -> [UInt8] { pieces.flatMap(\.bytes) }

    /// NameString (20.2.2): `\` for the root, then segments of four characters, filled up with `_`.
    static func name(_ path: String) -> [UInt8] {
        let isAbsolute = path.hasPrefix("\\")
        let segments = path.dropFirst(isAbsolute ? 1 : 0).split(separator: ".").map { segment -> [UInt8] in
            let letters = Array(segment.utf8)
            let isName =
                (1...4).contains(letters.count) && !(0x30...0x39).contains(letters[0])
                && letters.allSatisfy { (0x41...0x5A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5F }
            precondition(isName, "no ACPI name: \(path)")
            return letters + repeatElement(0x5F, count: 4 - letters.count)
        }
        let prefix: [UInt8] =
            switch segments.count {
            case 0: [0x00]
            case 1: []
            case 2: [0x2E]
            default: [0x2F, UInt8(segments.count)]
            }
        return (isAbsolute ? [0x5C] : []) + prefix + segments.flatMap { $0 }
    }

    /// PkgLength (20.2.4) of `count` bytes; it counts itself too.
    private static func packageLength(_ count: Int) -> [UInt8] {
        if count + 1 < 1 << 6 { return [UInt8(count + 1)] }
        let extra = count + 2 < 1 << 12 ? 1 : count + 3 < 1 << 20 ? 2 : 3
        let length = UInt64(count + 1 + extra)
        precondition(length < 1 << 28, "AML longer than its length field")
        return [UInt8(extra << 6) | UInt8(length & 0xF)] + little(length >> 4, extra)
    }

    private static func little(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
}
