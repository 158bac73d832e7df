import X86

/// One register as GDB knows it: its place in a `g` packet is behind those before it in `GDBRegister.all`.
struct GDBRegister {
    let name: String
    /// In bits.
    let size: Int
    let type: String
    var group: String?
    let feature: String
    let get: (VCPUState) -> [UInt8]
    /// Bytes as many as the register has. False if it cannot be written.
    let set: (inout VCPUState, [UInt8]) -> Bool

    var bytes: Int { size / 8 }

    // Safe: constant, and what the closures capture is constant too.
    nonisolated(unsafe) static let all: [GDBRegister] = core + x87 + sse + segments + system

    private static let coreFeature = "org.gnu.gdb.i386.core"

    /// A number at a place in the state.
    private static func number(
        _ name: String, _ size: Int, _ type: String, _ feature: String, group: String? = nil,
        _ get: @escaping (VCPUState) -> UInt64, _ set: @escaping (inout VCPUState, UInt64) -> Void
    ) -> GDBRegister {
        GDBRegister(
            name: name, size: size, type: type, group: group, feature: feature,
            get: { LittleEndian.bytes(get($0), count: size / 8) },
            set: {
                set(&$0, LittleEndian.number($1))
                return true
            })
    }

    private static func field(
        _ name: String, _ type: String, _ feature: String, _ path: WritableKeyPath<VCPUState, UInt64>
    ) -> GDBRegister {
        number(name, 64, type, feature, { $0[keyPath: path] }, { $0[keyPath: path] = $1 })
    }

    private static var core: [GDBRegister] {
        let order: [(String, Int)] = [
            ("rax", 0), ("rbx", 3), ("rcx", 1), ("rdx", 2), ("rsi", 6), ("rdi", 7), ("rbp", 5), ("rsp", 4),
        ]
        let names = order + (8..<16).map { ("r\($0)", $0) }
        let general = names.map { name, i in
            number(
                name, 64, name == "rbp" || name == "rsp" ? "data_ptr" : "int64", coreFeature,
                { $0.generalRegisters[i] }, { $0.generalRegisters[i] = $1 })
        }
        let rest = [
            number("rip", 64, "code_ptr", coreFeature, { $0.rip }, { $0.rip = $1 }),
            number(
                "eflags", 32, "i386_eflags", coreFeature, { $0.rflags },
                { $0.rflags = $1 & 0x3F_7FD7 | RFLAGS.reserved1 }),
        ]
        let selectors: [(String, WritableKeyPath<VCPUState, SegmentState>)] = [
            ("cs", \.cs), ("ss", \.ss), ("ds", \.ds), ("es", \.es), ("fs", \.fs), ("gs", \.gs),
        ]
        return general + rest
            + selectors.map { name, path in
                GDBRegister(
                    name: name, size: 32, type: "int32", feature: coreFeature,
                    get: { LittleEndian.bytes(UInt64($0[keyPath: path].selector), count: 4) },
                    // A selector without its descriptor is no segment.
                    set: { LittleEndian.number($1) == UInt64($0[keyPath: path].selector) })
            }
    }

    /// ST0 to ST7 and what FXSAVE keeps of the control registers (Intel SDM vol. 1, table 10-2).
    private static var x87: [GDBRegister] {
        let stack = (0..<8).map { i in
            GDBRegister(
                name: "st\(i)", size: 80, type: "i387_ext", feature: coreFeature,
                get: { ExtendedState($0).bytes(at: 32 + 16 * i, count: 10, of: XCR0.x87) },
                set: { ExtendedState.put($1, at: 32 + 16 * i, of: XCR0.x87, in: &$0) })
        }
        func control(_ name: String, offset: Int, bytes: Int) -> GDBRegister {
            GDBRegister(
                name: name, size: 32, type: "int", group: "float", feature: coreFeature,
                get: {
                    ExtendedState($0).bytes(at: offset, count: bytes, of: XCR0.x87)
                        + Array(repeating: 0, count: 4 - bytes)
                },
                set: { ExtendedState.put(Array($1.prefix(bytes)), at: offset, of: XCR0.x87, in: &$0) })
        }
        let tag = GDBRegister(
            name: "ftag", size: 32, type: "int", group: "float", feature: coreFeature,
            get: { LittleEndian.bytes(UInt64(ExtendedState($0).tagWord), count: 4) },
            set: { state, bytes in
                let word = LittleEndian.number(bytes)
                let abridged = (0..<8).reduce(UInt8(0)) { $0 | (word >> UInt64($1 * 2) & 3 == 3 ? 0 : 1 << UInt8($1)) }
                return ExtendedState.put([abridged], at: 4, of: XCR0.x87, in: &state)
            })
        // In 64-bit code the selectors are the upper halves of the pointers.
        return stack + [control("fctrl", offset: 0, bytes: 2), control("fstat", offset: 2, bytes: 2), tag]
            + [
                control("fiseg", offset: 12, bytes: 2), control("fioff", offset: 8, bytes: 4),
                control("foseg", offset: 20, bytes: 2), control("fooff", offset: 16, bytes: 4),
                control("fop", offset: 6, bytes: 2),
            ]
    }

    private static var sse: [GDBRegister] {
        let feature = "org.gnu.gdb.i386.sse"
        return (0..<16).map { i in
            GDBRegister(
                name: "xmm\(i)", size: 128, type: "vec128", feature: feature,
                get: { ExtendedState($0).bytes(at: 160 + 16 * i, count: 16, of: XCR0.SSE) },
                set: { ExtendedState.put($1, at: 160 + 16 * i, of: XCR0.SSE, in: &$0) })
        } + [
            GDBRegister(
                name: "mxcsr", size: 32, type: "i386_mxcsr", group: "vector", feature: feature,
                get: { ExtendedState($0).bytes(at: 24, count: 4, of: XCR0.SSE) },
                set: { state, bytes in
                    // Other bits raise #GP.
                    LittleEndian.number(bytes) & ~0xFFFF == 0
                        && ExtendedState.put(bytes, at: 24, of: XCR0.SSE, in: &state)
                })
        ]
    }

    private static var segments: [GDBRegister] {
        let feature = "org.gnu.gdb.i386.segments"
        return [field("fs_base", "int", feature, \.fs.base), field("gs_base", "int", feature, \.gs.base)]
    }

    private static let KERNEL_GS_BASE: UInt32 = 0xC000_0102

    private static var system: [GDBRegister] {
        let feature = "davit.x86.system"
        return [
            number(
                "k_gs_base", 64, "int", feature, { $0.modelSpecificRegisters[KERNEL_GS_BASE] ?? 0 },
                { $0.modelSpecificRegisters[KERNEL_GS_BASE] = $1 }),
            field("cr0", "int", feature, \.cr0), field("cr2", "int", feature, \.cr2),
            field("cr3", "int", feature, \.cr3), field("cr4", "int", feature, \.cr4),
            field("cr8", "int", feature, \.cr8), field("efer", "int", feature, \.efer),
        ]
    }
}

/// The FXSAVE part of an XSAVE image in the standard layout (SDM vol. 1, 13.4.1), of which components may be in their initial state.
struct ExtendedState {
    private var image: [UInt8]
    private var inUse: UInt64

    init(_ state: VCPUState) {
        image = state.xsave
        if image.count < 576 { image = Array(repeating: 0, count: 1024) }
        inUse = LittleEndian.number(Array(image[512..<520]))
        if inUse & XCR0.x87 == 0 {
            for i in Array(0..<24) + Array(32..<160) { image[i] = 0 }
            (image[0], image[1]) = (0x7F, 0x03)
        }
        if inUse & XCR0.SSE == 0 { for i in 160..<416 { image[i] = 0 } }
        // MXCSR is there whenever SSE or AVX is; an image that has neither may have 0.
        if inUse & (XCR0.SSE | XCR0.AVX) == 0 { (image[24], image[25], image[26], image[27]) = (0x80, 0x1F, 0, 0) }
    }

    func bytes(at offset: Int, count: Int, of component: UInt64) -> [UInt8] {
        Array(image[offset..<offset + count])
    }

    static func put(_ bytes: [UInt8], at offset: Int, of component: UInt64, in state: inout VCPUState) -> Bool {
        var extended = ExtendedState(state)
        extended.inUse |= component
        extended.image.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        extended.image.replaceSubrange(512..<520, with: LittleEndian.bytes(extended.inUse, count: 8))
        state.xsave = extended.image
        return true
    }

    /// FTW as FSTENV has it, from FXSAVE's one bit a register (SDM vol. 1, 8.1.7 and 10.5.1.1).
    var tagWord: UInt16 {
        let top = Int(image[3] >> 3 & 7)
        var word: UInt16 = 0
        for physical in 0..<8 {
            var tag: UInt16 = 3
            if image[4] >> UInt8(physical) & 1 != 0 {
                let place = 32 + 16 * ((physical - top) & 7)
                let exponent = LittleEndian.number(Array(image[place + 8..<place + 10])) & 0x7FFF
                let mantissa = LittleEndian.number(Array(image[place..<place + 8]))
                tag = exponent == 0 && mantissa == 0 ? 1 : exponent == 0x7FFF || mantissa >> 63 == 0 ? 2 : 0
            }
            word |= tag << UInt16(physical * 2)
        }
        return word
    }
}

enum LittleEndian {
    static func bytes(_ value: UInt64, count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
    }

    /// Of at most 8 bytes.
    static func number(_ bytes: [UInt8]) -> UInt64 {
        bytes.prefix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}

/// What GDB is told of the registers (GDB manual, appendix G).
enum TargetDescription {
    static let xml: [UInt8] = {
        var text = """
            <?xml version="1.0"?>
            <!DOCTYPE target SYSTEM "gdb-target.dtd">
            <target>
            <architecture>i386:x86-64</architecture>

            """
        var feature = ""
        for register in GDBRegister.all {
            if register.feature != feature {
                if !feature.isEmpty { text += "</feature>\n" }
                feature = register.feature
                text += "<feature name=\"\(feature)\">\n" + (types[feature] ?? "")
            }
            let group = register.group.map { " group=\"\($0)\"" } ?? ""
            text += "<reg name=\"\(register.name)\" bitsize=\"\(register.size)\" type=\"\(register.type)\"\(group)/>\n"
        }
        return Array((text + "</feature>\n</target>\n").utf8)
    }()

    private static let types = [
        "org.gnu.gdb.i386.core": flags(
            "i386_eflags",
            [
                ("", 1), ("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10),
                ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
            ]),
        "org.gnu.gdb.i386.sse": """
        <vector id="v4f" type="ieee_single" count="4"/>
        <vector id="v2d" type="ieee_double" count="2"/>
        <vector id="v16i8" type="int8" count="16"/>
        <vector id="v8i16" type="int16" count="8"/>
        <vector id="v4i32" type="int32" count="4"/>
        <vector id="v2i64" type="int64" count="2"/>
        <union id="vec128">
        <field name="v4_float" type="v4f"/>
        <field name="v2_double" type="v2d"/>
        <field name="v16_int8" type="v16i8"/>
        <field name="v8_int16" type="v8i16"/>
        <field name="v4_int32" type="v4i32"/>
        <field name="v2_int64" type="v2i64"/>
        <field name="uint128" type="uint128"/>
        </union>

        """
            + flags(
                "i386_mxcsr",
                [
                    ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8),
                    ("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15),
                ]),
    ]

    private static func flags(_ name: String, _ bits: [(String, Int)]) -> String {
        "<flags id=\"\(name)\" size=\"4\">\n"
            + bits.map { "<field name=\"\($0)\" start=\"\($1)\" end=\"\($1)\"/>\n" }.joined() + "</flags>\n"
    }
}
