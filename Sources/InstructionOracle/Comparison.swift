import COracle
import Glibc
import SoftEngine

/// Compares what the host did with what the interpreter did.
enum Comparison {
    /// RF is set in the image that an exception saves, as the kernel reports it; it is not the instruction's doing.
    private static let ignoredFlags: UInt64 = 1 << 16

    typealias Result = UnsafeMutablePointer<oracle_result>

    /// Of a page fault, the P bit tells nothing about the kernel's half of the address space: the two kernels map other pages there;
    /// and the host's may take a page of the test's away for a while. Where an access reaches into a second page and neither page
    /// allows it, CPUs name the one and tell of the other.
    private static func isSameError(_ host: Result, _ mine: Result) -> Bool {
        let difference = host.pointee.error_code ^ mine.pointee.error_code
        let reachesNextPage = host.pointee.cr2 & 0xFFF > 0x1000 - 128
        let isAbsent = host.pointee.error_code & 1 == 0
        if host.pointee.vector == 14 && (isAbsent || host.pointee.cr2 >> 63 != 0 || reachesNextPage) {
            return difference & ~1 == 0
        }
        return difference == 0 || !hasErrorCode(host.pointee.vector)
    }

    /// #TS, #NP, #SS, #GP, #PF, #AC: what accesses and loads of segments raise.
    private static func isMemoryFault(_ result: Result) -> Bool {
        let vector = result.pointee.vector
        return (10...14).contains(vector) || vector == 17
    }

    /// The exception, its error code and CR2 are the same, or may differ. `isMisalignable`: AC was set; whether a bad alignment or
    /// a bad address is found first is open.
    private static func isSameFault(
        _ host: Result, _ mine: Result, _ leeway: InstructionCatalog.Leeway, isMisalignable: Bool
    ) -> Bool {
        if isMemoryFault(host) && isMemoryFault(mine) {
            if leeway.contains(.faultOrder) { return true }
            if isMisalignable && (host.pointee.vector == 17) != (mine.pointee.vector == 17) { return true }
        }
        guard host.pointee.vector == mine.pointee.vector else { return false }
        if host.pointee.vector != 14 { return isSameError(host, mine) }
        return leeway.contains(.stateArea) || isSameError(host, mine) && host.pointee.cr2 == mine.pointee.cr2
    }

    /// The host found a masked operand to cross its segment's limit.
    private static func isLimitOfMaskedOperand(
        _ c: UnsafeMutablePointer<oracle_case>, _ host: Result, _ leeway: InstructionCatalog.Leeway
    ) -> Bool {
        leeway.contains(.maskedOperand) && (host.pointee.vector == 12 || host.pointee.vector == 13)
            && host.pointee.error_code == 0 && host.pointee.line_count == 0
            && oracle_case_registers(c).pointee.cs & 4 != 0
    }

    private static func isSameGeneral(_ host: Result, _ mine: Result, _ leeway: InstructionCatalog.Leeway) -> Bool {
        let a = oracle_gpr(oracle_result_registers(host))
        let b = oracle_gpr(oracle_result_registers(mine))
        if leeway.contains(.partialLoads) && isMemoryFault(host) { return a[4] == b[4] }
        return memcmp(a, b, 128) == 0
    }

    /// The kernel's IRET clears the RPL of null selectors.
    private static func isSame(_ host: UInt16, _ mine: UInt16) -> Bool { host == mine || (host | mine) & ~3 == 0 }

    /// Outside 64-bit mode nobody sees the upper half of RSP: returns to a stack segment of 16 bits leave a piece of the
    /// kernel's own stack pointer there, entries into compatibility mode clear it.
    static func clearStackRemains(
        _ c: UnsafeMutablePointer<oracle_case>, _ host: Result,
        _ mine: Result
    ) {
        let a = oracle_result_registers(host)
        let b = oracle_result_registers(mine)
        if oracle_case_registers(c).pointee.ss == CodeMode.selector(ORACLE_DATA16) || a.pointee.cs != 0x33 {
            oracle_gpr(a)[4] &= 0xFFFF_FFFF
            oracle_gpr(b)[4] &= 0xFFFF_FFFF
        }
    }

    /// True if nothing differs that the guest could see, but for what `leeway` leaves to the CPU. FXSAVE, XSAVE, FNSAVE and their
    /// like touch their area in an order of the CPU's own, so that of a page fault only the fact counts, and part of the area may
    /// be written. Where segments have limits, they may also meet one of these before they meet a page.
    static func agree(
        _ c: UnsafeMutablePointer<oracle_case>, _ host: Result,
        _ mine: Result, _ leeway: InstructionCatalog.Leeway
    ) -> Bool {
        let a = oracle_result_registers(host)
        let b = oracle_result_registers(mine)
        let isStateArea = leeway.contains(.stateArea)
        if isStateArea && a.pointee.cs != 0x33 && isMemoryFault(host) && isMemoryFault(mine) { return true }
        if isLimitOfMaskedOperand(c, host, leeway) { return true }
        let isMisalignable = oracle_case_registers(c).pointee.rflags >> 18 & 1 != 0
        guard isSameFault(host, mine, leeway, isMisalignable: isMisalignable),
            a.pointee.rip == b.pointee.rip, (a.pointee.rflags ^ b.pointee.rflags) & ~ignoredFlags == 0,
            a.pointee.fs_base == b.pointee.fs_base, a.pointee.gs_base == b.pointee.gs_base,
            a.pointee.cs == b.pointee.cs, a.pointee.ss == b.pointee.ss, isSame(a.pointee.ds, b.pointee.ds),
            isSame(a.pointee.es, b.pointee.es), isSame(a.pointee.fs, b.pointee.fs),
            isSame(a.pointee.gs, b.pointee.gs),
            isSameGeneral(host, mine, leeway),
            memcmp(oracle_result_xsave(host), oracle_result_xsave(mine), 416) == 0,
            memcmp(oracle_result_xsave(host) + 576, oracle_result_xsave(mine) + 576, 256) == 0
        else { return false }
        if isStateArea && host.pointee.vector == 14 { return true }
        guard host.pointee.line_count == mine.pointee.line_count else { return false }
        let count = Int(host.pointee.line_count) * MemoryLayout<oracle_line>.stride
        return memcmp(oracle_result_lines(host), oracle_result_lines(mine), count) == 0
    }

    private static func hasErrorCode(_ vector: UInt32) -> Bool {
        vector == 8 || (10...14).contains(vector) || vector == 17
    }

    /// What differs, a line each.
    static func describe(
        _ c: UnsafeMutablePointer<oracle_case>, _ host: Result,
        _ mine: Result, pattern: UnsafePointer<UInt8>
    ) -> [String] {
        var lines: [String] = []
        let before = oracle_case_registers(c)
        let a = oracle_result_registers(host)
        let b = oracle_result_registers(mine)
        func note(_ name: String, _ was: UInt64, _ host: UInt64, _ mine: UInt64) {
            lines.append("  \(name): \(hex(was)) -> host \(hex(host)), interpreter \(hex(mine))")
        }
        if host.pointee.vector != mine.pointee.vector || host.pointee.error_code != mine.pointee.error_code {
            lines.append("  outcome: host \(outcome(host)), interpreter \(outcome(mine))")
        }
        if host.pointee.cr2 != mine.pointee.cr2 && (host.pointee.vector == 14 || mine.pointee.vector == 14) {
            lines.append("  cr2: host \(hex(host.pointee.cr2)), interpreter \(hex(mine.pointee.cr2))")
        }
        let names = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ]
        for i in 0..<16 where oracle_gpr(a)[i] != oracle_gpr(b)[i] {
            note(names[i], oracle_gpr(before)[i], oracle_gpr(a)[i], oracle_gpr(b)[i])
        }
        if a.pointee.rip != b.pointee.rip { note("rip", before.pointee.rip, a.pointee.rip, b.pointee.rip) }
        if (a.pointee.rflags ^ b.pointee.rflags) & ~ignoredFlags != 0 {
            note("rflags", before.pointee.rflags, a.pointee.rflags, b.pointee.rflags)
            lines.append("    differing: \(flagNames((a.pointee.rflags ^ b.pointee.rflags) & ~ignoredFlags))")
        }
        if a.pointee.fs_base != b.pointee.fs_base {
            note("fs base", ORACLE_FS_BASE, a.pointee.fs_base, b.pointee.fs_base)
        }
        if a.pointee.gs_base != b.pointee.gs_base {
            note("gs base", ORACLE_GS_BASE, a.pointee.gs_base, b.pointee.gs_base)
        }
        func noteSegment(_ name: String, _ field: KeyPath<oracle_registers, UInt16>) {
            guard a.pointee[keyPath: field] != b.pointee[keyPath: field] else { return }
            note(
                name, UInt64(before.pointee[keyPath: field]), UInt64(a.pointee[keyPath: field]),
                UInt64(b.pointee[keyPath: field]))
        }
        noteSegment("cs", \.cs)
        noteSegment("ss", \.ss)
        noteSegment("ds", \.ds)
        noteSegment("es", \.es)
        noteSegment("fs", \.fs)
        noteSegment("gs", \.gs)
        describeExtendedState(c, host, mine, &lines)
        describeMemory(host, mine, pattern: pattern, &lines)
        return lines
    }

    private static func describeExtendedState(
        _ c: UnsafeMutablePointer<oracle_case>, _ host: Result,
        _ mine: Result, _ lines: inout [String]
    ) {
        let before = UnsafeRawPointer(oracle_case_xsave(c))
        let a = UnsafeRawPointer(oracle_result_xsave(host))
        let b = UnsafeRawPointer(oracle_result_xsave(mine))
        func note(_ name: String, _ offset: Int, _ size: Int) {
            guard memcmp(a + offset, b + offset, size) != 0 else { return }
            lines.append(
                "  \(name): \(bytes(before + offset, size)) -> host \(bytes(a + offset, size)), "
                    + "interpreter \(bytes(b + offset, size))")
        }
        note("fcw", 0, 2)
        note("fsw", 2, 2)
        note("ftw", 4, 2)
        note("fop", 6, 2)
        note("fip", 8, 8)
        note("fdp", 16, 8)
        note("mxcsr", 24, 4)
        note("mxcsr mask", 28, 4)
        for i in 0..<8 { note("st\(i)", 32 + i * 16, 16) }
        for i in 0..<16 {
            note("xmm\(i)", 160 + i * 16, 16)
            note("ymm\(i) high", 576 + i * 16, 16)
        }
    }

    private static func describeMemory(
        _ host: Result, _ mine: Result,
        pattern: UnsafePointer<UInt8>, _ lines: inout [String]
    ) {
        let size = Int(ORACLE_LINE)
        func content(_ result: Result, _ offset: UInt32) -> UnsafePointer<UInt8> {
            let all = oracle_result_lines(result)
            for i in 0..<Int(result.pointee.line_count) where all[i].offset == offset {
                return UnsafePointer(oracle_line_bytes(all + i))
            }
            return pattern + Int(offset)
        }
        var offsets = Set<UInt32>()
        for result in [host, mine] {
            for i in 0..<Int(result.pointee.line_count) { offsets.insert(oracle_result_lines(result)[i].offset) }
        }
        var count = 0
        for offset in offsets.sorted() {
            let a = content(host, offset)
            let b = content(mine, offset)
            for at in stride(from: 0, to: size, by: 8) where memcmp(a + at, b + at, 8) != 0 {
                count += 1
                if count > 16 { return lines.append("  more memory differs") }
                lines.append(
                    "  memory \(hex(ORACLE_DATA_ADDRESS + UInt64(offset) + UInt64(at))): "
                        + "\(bytes(pattern + Int(offset) + at, 8)) -> host \(bytes(a + at, 8)), "
                        + "interpreter \(bytes(b + at, 8))")
            }
        }
    }

    private static func outcome(_ result: Result) -> String {
        let vector = result.pointee.vector
        if vector == 1 { return "carried out" }
        let names = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS", "#GP", "#PF", "15",
            "#MF", "#AC", "#MC", "#XM",
        ]
        let name = vector < UInt32(names.count) ? names[Int(vector)] : "\(vector)"
        return hasErrorCode(vector) ? "\(name)(\(hex(UInt64(result.pointee.error_code))))" : name
    }

    private static func flagNames(_ flags: UInt64) -> String {
        let names: [(UInt64, String)] = [
            (0, "CF"), (2, "PF"), (4, "AF"), (6, "ZF"), (7, "SF"), (8, "TF"), (9, "IF"), (10, "DF"), (11, "OF"),
            (14, "NT"),
            (18, "AC"), (21, "ID"),
        ]
        return names.filter { flags >> $0.0 & 1 != 0 }.map(\.1).joined(separator: " ")
    }

    static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

    /// Bytes from the highest address down, as numbers are written.
    private static func bytes(_ place: UnsafeRawPointer, _ count: Int) -> String {
        var text = ""
        for i in stride(from: count - 1, through: 0, by: -1) {
            let digits = String(place.load(fromByteOffset: i, as: UInt8.self), radix: 16)
            text += digits.count == 1 ? "0" + digits : digits
        }
        return text
    }
}
