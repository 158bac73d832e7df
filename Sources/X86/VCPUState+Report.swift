// What is said of a guest that cannot go on.
extension VCPUState {
    /// Registers, a few to each line.
    public var report: String {
        func hex(_ value: UInt64, _ digits: Int = 16) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        let names = ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8 ", "R9 "] + (10..<16).map { "R\($0)" }
        var lines = (0..<4).map { row in
            (row * 4..<row * 4 + 4).map { "\(names[$0])=\(hex(generalRegisters[$0]))" }.joined(separator: " ")
        }
        let level = cr0 & CR0.PE == 0 ? 0 : rflags & RFLAGS.VM != 0 ? 3 : cs.selector & 3
        lines.append("RIP=\(hex(rip)) RFL=\(hex(rflags, 8)) CPL=\(level)")
        for (name, segment) in [
            ("ES ", es), ("CS ", cs), ("SS ", ss), ("DS ", ds), ("FS ", fs), ("GS ", gs), ("LDT", ldtr), ("TR ", tr),
        ] {
            lines.append(
                "\(name)=\(hex(UInt64(segment.selector), 4)) \(hex(segment.base)) \(hex(UInt64(segment.limit), 8)) "
                    + hex(UInt64(segment.attributes), 4))
        }
        lines.append(
            "GDT=\(hex(gdtr.base)) \(hex(UInt64(gdtr.limit), 4)) IDT=\(hex(idtr.base)) \(hex(UInt64(idtr.limit), 4))")
        lines.append("CR0=\(hex(cr0, 8)) CR2=\(hex(cr2)) CR3=\(hex(cr3)) CR4=\(hex(cr4, 8)) EFER=\(hex(efer, 4))")
        return lines.joined(separator: "\n")
    }
}
