import SoftEngine

/// Where a random program finds things: 256 KiB of RAM, which three windows of linear addresses show, and the tables and handlers in it.
enum ProgramLayout {
    static let ramSize: UInt64 = 0x4_0000

    // MARK: Guest physical addresses

    static let pageMap: UInt64 = 0x1000
    private static let lowTable: UInt64 = 0x4000
    private static let highTable: UInt64 = 0x7000
    private static let edgeTable: UInt64 = 0xA000
    /// A second address space: other data behind the same addresses.
    static let otherPageMap: UInt64 = 0xB000
    private static let otherLowTable: UInt64 = 0xE000
    /// Below are page tables.
    static let tablesEnd = 0xF000
    static let gdt: UInt64 = 0x1_0000
    static let tss: UInt64 = 0x1_0800
    static let idt: UInt64 = 0x1_1000
    static let handlers: UInt64 = 0x1_2000
    /// Counters, addresses to resume at, log of exceptions.
    static let kernelData: UInt64 = 0x1_3000
    static let resumeTable = kernelData + 0x100
    static let exceptionLog = kernelData + 0x400
    private static let kernelStackEnd: UInt64 = 0x1_5000
    private static let interruptStackEnd: UInt64 = 0x1_6000
    private static let systemCallStackEnd: UInt64 = 0x1_7000
    static let kernelGS: UInt64 = 0x1_7000
    static let code: UInt64 = 0x1_8000
    static let codeSize: UInt64 = 0x4000
    /// The same code with other immediates, to be mapped in its stead.
    static let codeCopy: UInt64 = 0x1_C000
    static let data: UInt64 = 0x2_0000
    static let dataPages = 12
    static let stack: UInt64 = 0x2_C000
    static let stackSize: UInt64 = 0x2000
    /// How many backward jumps are left.
    static let fuel: UInt64 = 0x2_E000
    /// Frames that are mapped in the place of data.
    static let spare: UInt64 = 0x3_0000

    // MARK: Linear windows; RAM begins at each of them

    /// Code, data and stack as user mode has them.
    static let low: UInt64 = 0x40_0000
    /// The same pages, all writable, none executable.
    static let alias: UInt64 = 0x50_0000
    /// One page of 2 MiB, of which RAM is the beginning.
    static let large: UInt64 = 0x60_0000
    /// All of RAM, for the supervisor.
    static let high: UInt64 = 0xFFFF_FFFF_8000_0000
    /// The last page below the canonical hole shows the last page of code.
    static let edge: UInt64 = 0x7FFF_FFFF_F000

    /// The most exceptions that a program may raise; then it ends.
    static let mostExceptions = 8
    static let interruptVector: UInt8 = 0x40
    /// INT with it ends a program, from any CPL.
    static let endVector: UInt8 = 0x31
    /// INT with it is a system call.
    static let callVector: UInt8 = 0x30

    /// What a page of data allows.
    enum PageKind: UInt64, CaseIterable {
        case plain, readOnly, supervisor, absent, executable, device, reserved, clean
    }

    // MARK: Filling RAM

    /// Writes tables and handlers. `usesInterruptStack`: every handler has a stack of its own.
    static func fill(
        _ ram: UnsafeMutableRawPointer, kinds: [PageKind], usesInterruptStack: Bool, isGlobal: Bool,
        random: inout RandomSource
    ) {
        func put(_ address: UInt64, _ value: UInt64) {
            ram.storeBytes(of: value, toByteOffset: Int(address), as: UInt64.self)
        }
        put(pageMap, 0x2007)
        put(0x2000, 0x3007)
        put(0x3000 + 2 * 8, lowTable | 7)
        put(0x3000 + 3 * 8, 1 << 63 | 0x87)
        put(pageMap + 511 * 8, 0x5007)
        put(0x5000 + 510 * 8, 0x6007)
        put(0x6000, highTable | 7)
        put(pageMap + 255 * 8, 0x8007)
        put(0x8000 + 511 * 8, 0x9007)
        put(0x9000 + 511 * 8, edgeTable | 7)
        put(otherPageMap, 0xC007)
        put(0xC000, 0xD007)
        put(0xD000 + 2 * 8, otherLowTable | 7)
        put(otherPageMap + 511 * 8, 0x5007)
        put(edgeTable + 510 * 8, code + 0x2000 | 5)
        put(edgeTable + 511 * 8, code + 0x3000 | 5)
        let global: UInt64 = isGlobal ? 1 << 8 : 0
        for page in 0..<ramSize >> 12 { put(highTable + page * 8, page << 12 | 0x63 | global) }
        for table in [lowTable, otherLowTable] {
            for page in code >> 12..<(fuel >> 12) + 1 {
                // Windows begin at multiples of 1 MiB, so the low one has the table's first half.
                put(table + page * 8, page << 12 | 7)
                put(table + (0x100 + page) * 8, page << 12 | 7 | 1 << 63)
            }
        }
        for (i, kind) in kinds.enumerated() {
            let page = data + UInt64(i) << 12
            let used = random.below(4) << 5
            put(lowTable + page >> 12 * 8, entry(page, kind) | used)
            let other = kinds[Int(random.below(UInt64(kinds.count)))]
            put(otherLowTable + page >> 12 * 8, entry(spare + UInt64(i) << 12, other) | used)
            if kind == .absent || kind == .device || kind == .readOnly {
                put(highTable + page >> 12 * 8, entry(page, kind) & ~4)
            }
        }
        fillTables(put, usesInterruptStack: usesInterruptStack)
        ProgramHandlers.write(ram)
    }

    static func entry(_ page: UInt64, _ kind: PageKind) -> UInt64 {
        let noExecute: UInt64 = 1 << 63
        return switch kind {
        case .plain: page | 7 | noExecute
        case .readOnly: page | 5 | noExecute
        case .supervisor: page | 3 | noExecute
        case .absent: page | 6
        case .executable: page | 7
        case .device: 0xFED0_0000 | page & 0xF000 | 7
        case .reserved: page | 7 | 1 << 51
        case .clean: page | 7 | noExecute
        }
    }

    /// Maps another frame for a page of the low window.
    static func setLowPage(_ page: UInt64, _ entry: UInt64) -> (address: UInt64, bytes: [UInt8]) {
        let bytes = (0..<8).map { UInt8(truncatingIfNeeded: entry >> UInt64($0 * 8)) }
        return (lowTable + page >> 12 * 8, bytes)
    }

    private static func fillTables(_ put: (UInt64, UInt64) -> Void, usesInterruptStack: Bool) {
        let descriptors: [UInt64] = [
            0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF,
            0x00AF_FB00_0000_FFFF, 0x00CF_9B00_0000_FFFF,
        ]
        for (i, descriptor) in descriptors.enumerated() { put(gdt + UInt64(i) * 8, descriptor) }
        // The task state: RSP0 at 4, IST1 at 0x24, no I/O permissions.
        put(tss + 4, high + kernelStackEnd)
        put(tss + 0x24, high + interruptStackEnd)
        put(tss + 0x60, 0x68 << 48)
        for vector in 0..<UInt64(0x60) {
            let handler = high + handlers + vector * 16
            let isOpen = [3, 4, UInt64(endVector), UInt64(callVector)].contains(vector)
            let type: UInt64 = isOpen ? 0xEE : 0x8E
            let selector = UInt64(ProgramBench.Selector.kernelCode)
            put(
                idt + vector * 16,
                handler & 0xFFFF | selector << 16 | (usesInterruptStack ? 1 << 32 : 0) | type << 40
                    | (handler >> 16 & 0xFFFF) << 48)
            put(idt + vector * 16 + 8, handler >> 32)
        }
        put(kernelData + 0x40, high + systemCallStackEnd)
    }
}

/// The program's kernel: what exceptions, interrupts and system calls do.
enum ProgramHandlers {
    private static let kernel = ProgramLayout.high
    private static let common = ProgramLayout.handlers + 0x800
    private static let finish = common + 0x100
    static let systemCall = kernel + common + 0x200

    static func write(_ ram: UnsafeMutableRawPointer) {
        for vector in 0..<0x60 { stub(UInt8(vector)).write(ram, at: ProgramLayout.handlers + UInt64(vector) * 16) }
        exception.write(ram, at: common)
        // HLT with interrupts off: the end.
        Bytes([0xFA, 0xF4, 0xEB, 0xFC]).write(ram, at: finish)
        call.write(ram, at: common + 0x200)
    }

    private static func stub(_ vector: UInt8) -> Bytes {
        switch vector {
        case 1:
            // #DB: once is enough. and qword [rsp+16], ~TF; iretq
            return Bytes([0x48, 0x81, 0x64, 0x24, 0x10, 0xFF, 0xFE, 0xFF, 0xFF, 0x48, 0xCF])
        case ProgramLayout.endVector:
            return jump(from: vector, prologue: [], to: finish)
        case 0x20...:
            // inc qword [count]; iretq
            var bytes = Bytes([0x48, 0xFF, 0x04, 0x25])
            bytes.address(ProgramLayout.kernelData + 8)
            bytes.bytes += [0x48, 0xCF]
            return bytes
        default:
            let hasCode = [8, 10, 11, 12, 13, 14, 17].contains(vector)
            // push 0; push vector; jmp common
            return jump(from: vector, prologue: (hasCode ? [] : [0x6A, 0]) + [0x6A, vector], to: common)
        }
    }

    private static func jump(from vector: UInt8, prologue: [UInt8], to target: UInt64) -> Bytes {
        var bytes = Bytes(prologue + [0xE9])
        let next = ProgramLayout.handlers + UInt64(vector) * 16 + UInt64(prologue.count) + 5
        bytes.word(target &- next)
        return bytes
    }

    /// Counts the exception, logs vector, error code and CR2, and returns to the address that the table has for it.
    private static let exception: Bytes = {
        var code = Bytes([0x50, 0x53])  // push rax; push rbx
        code.bytes += [0x48, 0x8B, 0x04, 0x25]  // mov rax, [count]
        code.address(ProgramLayout.kernelData)
        code.bytes += [0x48, 0xFF, 0xC0, 0x48, 0x89, 0x04, 0x25]  // inc rax; mov [count], rax
        code.address(ProgramLayout.kernelData)
        code.bytes += [0x83, 0xF8, UInt8(ProgramLayout.mostExceptions), 0x0F, 0x87]  // cmp eax, most; ja finish
        code.word(finish &- (common + UInt64(code.bytes.count) + 4))
        code.bytes += [0x48, 0x8B, 0x1C, 0xC5]  // mov rbx, [rax*8 + table]
        code.address(ProgramLayout.resumeTable)
        // xchg rbx, [rsp+32]; shl eax, 5; mov [rax + log], rbx
        code.bytes += [0x48, 0x87, 0x5C, 0x24, 0x20, 0xC1, 0xE0, 0x05, 0x48, 0x89, 0x98]
        code.address(ProgramLayout.exceptionLog)
        code.bytes += [0x48, 0x8B, 0x5C, 0x24, 0x10, 0x48, 0x89, 0x98]  // mov rbx, [rsp+16]; mov [rax + log + 8], rbx
        code.address(ProgramLayout.exceptionLog + 8)
        code.bytes += [0x48, 0x8B, 0x5C, 0x24, 0x18, 0x48, 0x89, 0x98]  // mov rbx, [rsp+24]; mov [rax + log + 16], rbx
        code.address(ProgramLayout.exceptionLog + 16)
        code.bytes += [0x0F, 0x20, 0xD3, 0x48, 0x89, 0x98]  // mov rbx, cr2; mov [rax + log + 24], rbx
        code.address(ProgramLayout.exceptionLog + 24)
        code.bytes += [0x5B, 0x58, 0x48, 0x83, 0xC4, 0x10, 0x48, 0xCF]  // pop rbx; pop rax; add rsp, 16; iretq
        return code
    }()

    /// SYSCALL's entry, as kernels write it.
    private static let call: Bytes = {
        // swapgs; mov gs:[0x20], rsp; mov rsp, [stack]
        var code = Bytes([0x0F, 0x01, 0xF8, 0x65, 0x48, 0x89, 0x24, 0x25, 0x20, 0, 0, 0, 0x48, 0x8B, 0x24, 0x25])
        code.address(ProgramLayout.kernelData + 0x40)
        // push r11; push rcx; push rax; inc qword [count]
        code.bytes += [0x41, 0x53, 0x51, 0x50, 0x48, 0xFF, 0x04, 0x25]
        code.address(ProgramLayout.kernelData + 16)
        // pop rax; pop rcx; pop r11; mov rsp, gs:[0x20]; swapgs; sysretq
        code.bytes += [0x58, 0x59, 0x41, 0x5B, 0x65, 0x48, 0x8B, 0x24, 0x25, 0x20, 0, 0, 0, 0x0F, 0x01, 0xF8]
        code.bytes += [0x48, 0x0F, 0x07]
        return code
    }()

    struct Bytes {
        var bytes: [UInt8]

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        mutating func word(_ value: UInt64) {
            for i in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(i * 8))) }
        }
        /// Of the kernel's window, as a sign-extended displacement.
        mutating func address(_ physical: UInt64) { word(ProgramHandlers.kernel &+ physical) }

        func write(_ ram: UnsafeMutableRawPointer, at physical: UInt64) {
            bytes.withUnsafeBytes { source in
                (ram + Int(physical)).copyMemory(from: source.baseAddress.unsafelyUnwrapped, byteCount: source.count)
            }
        }
    }
}
