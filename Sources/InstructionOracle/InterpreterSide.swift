import CDavit
import COracle
import SoftEngine

/// The interpreter's side of a comparison: the same cases, the same memory, results in the same form.
struct InterpreterSide {
    let bench: InstructionBench
    private let data: UnsafeMutableRawPointer
    private let code: UnsafeMutableRawPointer

    init(bench: InstructionBench) {
        self.bench = bench
        code = bench.host(linear: ORACLE_CODE_ADDRESS)
        data = bench.host(linear: ORACLE_DATA_ADDRESS)
    }

    static let mapping = [
        InstructionBench.Pages(
            linear: ORACLE_CODE_ADDRESS, size: ORACLE_CODE_SIZE, isWritable: false, isExecutable: true),
        InstructionBench.Pages(
            linear: ORACLE_DATA_ADDRESS, size: ORACLE_DATA_SIZE, isWritable: true, isExecutable: true),
        InstructionBench.Pages(
            linear: ORACLE_DATA_ADDRESS + ORACLE_DATA_SIZE, size: ORACLE_CONSTANT_SIZE, isWritable: false,
            isExecutable: true),
    ]

    static let descriptors = (0..<Int32(ORACLE_SEGMENTS.rawValue)).map { oracle_descriptor($0) }

    func loadPattern(_ pattern: UnsafePointer<UInt8>) {
        data.copyMemory(from: pattern, byteCount: Int(ORACLE_DATA_SIZE + ORACLE_CONSTANT_SIZE))
    }

    func run(
        _ c: UnsafeMutablePointer<oracle_case>, pattern: UnsafePointer<UInt8>,
        into result: UnsafeMutablePointer<oracle_result>
    ) {
        let cpu = bench.cpu
        let given = oracle_case_registers(c)
        bench.setSegments(
            cs: given.pointee.cs, ss: given.pointee.ss, ds: given.pointee.ds, es: given.pointee.es,
            fs: given.pointee.fs, gs: given.pointee.gs, fsBase: given.pointee.fs_base, gsBase: given.pointee.gs_base)
        davit_cpu_gpr(cpu).update(from: oracle_gpr(given), count: 16)
        cpu.pointee.rip = given.pointee.rip
        let trap: UInt64 = c.pointee.flags & ORACLE_STOP_BY_BREAKPOINT.rawValue != 0 ? 0 : 0x100
        cpu.pointee.rflags = given.pointee.rflags | trap
        let segments = davit_cpu_segment(cpu)
        UnsafeMutableRawPointer(davit_cpu_xsave(cpu)).copyMemory(
            from: oracle_case_xsave(c), byteCount: Int(ORACLE_XSAVE_SIZE))
        bench.adoptState()

        placeCode(c)
        for i in 0..<2 {
            let overlay = oracle_case_overlays(c) + i
            (data + Int(overlay.pointee.offset)).copyMemory(
                from: oracle_overlay_bytes(overlay), byteCount: Int(overlay.pointee.count))
        }

        let outcome = bench.step()
        bench.publishState()

        let registers = oracle_result_registers(result)
        oracle_gpr(registers).update(from: davit_cpu_gpr(cpu), count: 16)
        registers.pointee.rip = cpu.pointee.rip
        registers.pointee.rflags = cpu.pointee.rflags
        registers.pointee.fs_base = segments[Int(DAVIT_FS.rawValue)].base
        registers.pointee.gs_base = segments[Int(DAVIT_GS.rawValue)].base
        registers.pointee.cs = segments[Int(DAVIT_CS.rawValue)].selector
        registers.pointee.ss = segments[Int(DAVIT_SS.rawValue)].selector
        registers.pointee.ds = segments[Int(DAVIT_DS.rawValue)].selector
        registers.pointee.es = segments[Int(DAVIT_ES.rawValue)].selector
        registers.pointee.fs = segments[Int(DAVIT_FS.rawValue)].selector
        registers.pointee.gs = segments[Int(DAVIT_GS.rawValue)].selector
        result.pointee.vector = outcome.vector.map(UInt32.init) ?? 1
        result.pointee.error_code = outcome.errorCode
        result.pointee.cr2 = cpu.pointee.cr2
        UnsafeMutableRawPointer(oracle_result_xsave(result)).copyMemory(
            from: davit_cpu_xsave(cpu), byteCount: Int(ORACLE_XSAVE_SIZE))
        collectLines(pattern, result)
    }

    /// The code may end at the end of its pages: then what is missing is not fetched, or faults.
    private func placeCode(_ c: UnsafeMutablePointer<oracle_case>) {
        let offset = Int(c.pointee.code_address - ORACLE_CODE_ADDRESS)
        let bytes = oracle_case_code(c)
        for i in 0..<min(16, Int(ORACLE_CODE_SIZE) - offset) {
            code.storeBytes(
                of: i < Int(c.pointee.code_length) ? bytes[i] : 0xCC, toByteOffset: offset + i, as: UInt8.self)
        }
    }

    /// Notes what changed in memory and puts it right again.
    private func collectLines(_ pattern: UnsafePointer<UInt8>, _ result: UnsafeMutablePointer<oracle_result>) {
        let lines = oracle_result_lines(result)
        let before = UnsafeRawPointer(pattern)
        let size = Int(ORACLE_LINE)
        var count = 0
        for at in stride(from: 0, to: Int(ORACLE_DATA_SIZE), by: size) {
            var difference: UInt64 = 0
            for word in stride(from: at, to: at &+ size, by: 8) {
                difference |=
                    data.load(fromByteOffset: word, as: UInt64.self)
                    ^ before.load(fromByteOffset: word, as: UInt64.self)
            }
            guard difference != 0 else { continue }
            if count < Int(ORACLE_MAX_LINES) {
                lines[count].offset = UInt32(at)
                UnsafeMutableRawPointer(oracle_line_bytes(lines + count)).copyMemory(from: data + at, byteCount: size)
                count &+= 1
            }
            (data + at).copyMemory(from: before + at, byteCount: size)
        }
        result.pointee.line_count = UInt32(count)
    }
}
