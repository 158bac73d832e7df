import CDavit
import Glibc
import SoftEngine

/// Compares the states of two benches.
enum ProgramState {
    /// Nothing that a guest could see differs. The x87 pointers are left out: translated code does not keep them.
    static func agree(_ a: ProgramBench, _ b: ProgramBench) -> Bool {
        sameRegisters(a, b) && sameSystem(a, b) && sameExtended(a, b)
            && a.isShutDown == b.isShutDown && a.deviceHash == b.deviceHash && sameTables(a, b)
            && memcmp(
                a.ram + ProgramLayout.tablesEnd, b.ram + ProgramLayout.tablesEnd, a.ramSize - ProgramLayout.tablesEnd)
                == 0
    }

    /// Page tables may differ in bits that a CPU sets for an access which a fault of another kind then forbids: accessed, and on the
    /// translator's side dirty. Where they do, they are made equal.
    private static func sameTables(_ mine: ProgramBench, _ theirs: ProgramBench) -> Bool {
        let size = ProgramLayout.tablesEnd
        if memcmp(mine.ram, theirs.ram, size) == 0 { return true }
        var difference: UInt64 = 0
        for at in stride(from: 0, to: size, by: 8) {
            let a = mine.ram.load(fromByteOffset: at, as: UInt64.self)
            let b = theirs.ram.load(fromByteOffset: at, as: UInt64.self)
            difference |= (a | b & 0x40) ^ b
        }
        guard difference & ~0x20 == 0 else { return false }
        mine.ram.copyMemory(from: theirs.ram, byteCount: size)
        return true
    }

    /// The general registers, RIP and RFLAGS: what mostly tells two states apart.
    @inline(__always)
    static func sameRegisters(_ a: ProgramBench, _ b: ProgramBench) -> Bool {
        a.cpu.pointee.rip == b.cpu.pointee.rip && a.cpu.pointee.rflags == b.cpu.pointee.rflags
            && memcmp(a.cpu, b.cpu, 128) == 0
    }

    private static func sameSystem(_ a: ProgramBench, _ b: ProgramBench) -> Bool {
        let x = a.cpu
        let y = b.cpu
        for i in 0..<Int(DAVIT_SEGMENTS.rawValue) where !same(davit_cpu_segment(x)[i], davit_cpu_segment(y)[i]) {
            return false
        }
        return x.pointee.cpl == y.pointee.cpl && x.pointee.code_size == y.pointee.code_size
            && x.pointee.cr0 == y.pointee.cr0 && x.pointee.cr2 == y.pointee.cr2 && x.pointee.cr3 == y.pointee.cr3
            && x.pointee.cr4 == y.pointee.cr4 && x.pointee.efer == y.pointee.efer
            && x.pointee.kernel_gs_base == y.pointee.kernel_gs_base && x.pointee.halted == y.pointee.halted
            && davit_cpu_dr(x)[6] == davit_cpu_dr(y)[6]
    }

    private static func same(_ a: davit_segment, _ b: davit_segment) -> Bool {
        a.base == b.base && a.limit == b.limit && a.selector == b.selector && a.attributes == b.attributes
    }

    /// Parts of the extended state's image: name, offset, size. Its header is nobody's.
    private static let parts: [(name: String, offset: Int, size: Int)] =
        [("fcw", 0, 2), ("fsw", 2, 2), ("ftw", 4, 1), ("mxcsr", 24, 4)]
        + (0..<8).map { ("st\($0)", 32 + $0 * 16, 10) } + (0..<16).map { ("xmm\($0)", 160 + $0 * 16, 16) }
        + (0..<16).map { ("ymm\($0) high", 576 + $0 * 16, 16) }

    private static func sameExtended(_ a: ProgramBench, _ b: ProgramBench) -> Bool {
        let x = UnsafeRawPointer(davit_cpu_xsave(a.cpu))
        let y = UnsafeRawPointer(davit_cpu_xsave(b.cpu))
        if memcmp(x, y, 5) != 0 || memcmp(x + 24, y + 24, 4) != 0 || memcmp(x + 160, y + 160, 256) != 0
            || memcmp(x + 576, y + 576, 256) != 0
        {
            return false
        }
        for i in 0..<8 where memcmp(x + 32 + i * 16, y + 32 + i * 16, 10) != 0 { return false }
        return true
    }

    private static func value(_ image: UnsafeRawPointer, _ part: (name: String, offset: Int, size: Int)) -> [UInt8] {
        (0..<part.size).map { image.load(fromByteOffset: part.offset + $0, as: UInt8.self) }
    }

    private static let names = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    ]

    /// What differs, a line each; `b` is the translator's.
    static func differences(_ a: ProgramBench, _ b: ProgramBench) -> [String] {
        var lines: [String] = []
        func note(_ name: String, _ x: UInt64, _ y: UInt64) {
            if x != y { lines.append("  \(name): interpreter \(Comparison.hex(x)), translator \(Comparison.hex(y))") }
        }
        let x = a.cpu
        let y = b.cpu
        for i in 0..<16 { note(names[i], davit_cpu_gpr(x)[i], davit_cpu_gpr(y)[i]) }
        note("rip", x.pointee.rip, y.pointee.rip)
        note("rflags", x.pointee.rflags, y.pointee.rflags)
        note("cpl", UInt64(x.pointee.cpl), UInt64(y.pointee.cpl))
        note("code size", UInt64(x.pointee.code_size), UInt64(y.pointee.code_size))
        note("cr0", x.pointee.cr0, y.pointee.cr0)
        note("cr2", x.pointee.cr2, y.pointee.cr2)
        note("cr3", x.pointee.cr3, y.pointee.cr3)
        note("cr4", x.pointee.cr4, y.pointee.cr4)
        note("efer", x.pointee.efer, y.pointee.efer)
        note("dr6", davit_cpu_dr(x)[6], davit_cpu_dr(y)[6])
        note("kernel gs base", x.pointee.kernel_gs_base, y.pointee.kernel_gs_base)
        note("halted", UInt64(x.pointee.halted), UInt64(y.pointee.halted))
        let segments = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"]
        for (i, name) in segments.enumerated() {
            let s = davit_cpu_segment(x)[i]
            let t = davit_cpu_segment(y)[i]
            note("\(name).base", s.base, t.base)
            note("\(name).limit", UInt64(s.limit), UInt64(t.limit))
            note("\(name).selector", UInt64(s.selector), UInt64(t.selector))
            note("\(name).attributes", UInt64(s.attributes), UInt64(t.attributes))
        }
        for part in parts {
            let p = value(UnsafeRawPointer(davit_cpu_xsave(x)), part)
            let q = value(UnsafeRawPointer(davit_cpu_xsave(y)), part)
            if p != q { lines.append("  \(part.name): interpreter \(number(p)), translator \(number(q))") }
        }
        note("writes to devices", a.deviceHash, b.deviceHash)
        var count = 0
        for at in stride(from: 0, to: a.ramSize, by: 8) {
            let p = a.ram.load(fromByteOffset: at, as: UInt64.self)
            let q = b.ram.load(fromByteOffset: at, as: UInt64.self)
            guard p != q else { continue }
            count += 1
            if count > 12 {
                lines.append("  more memory differs")
                break
            }
            note("physical \(Comparison.hex(UInt64(at)))", p, q)
        }
        return lines
    }

    /// Bytes from the highest address down, as numbers are written.
    static func number(_ bytes: [UInt8]) -> String { hex(bytes.reversed(), separator: "") }

    static func hex(_ bytes: some Sequence<UInt8>, separator: String = " ") -> String {
        bytes.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined(separator: separator)
    }
}
