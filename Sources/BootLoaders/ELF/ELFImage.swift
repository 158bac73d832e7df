/// An ELF executable for x86, 32- or 64-bit (System V ABI, chapters 4 and 5).
struct ELFImage {
    struct Segment {
        let type: UInt32
        let fileOffset: UInt64
        let virtualAddress: UInt64
        let physicalAddress: UInt64
        /// Bytes in the file.
        let fileSize: UInt64
        /// Bytes in memory; those past `fileSize` are zero.
        let memorySize: UInt64
    }

    static let PT_LOAD: UInt32 = 1
    static let PT_NOTE: UInt32 = 4
    private static let EM_386: UInt16 = 3
    private static let EM_X86_64: UInt16 = 62

    let file: KernelFile
    let is64Bit: Bool
    let isX86_64: Bool
    let entry: UInt64
    let segments: [Segment]

    static func isPresent(in head: [UInt8]) -> Bool { head.starts(with: [0x7F, 0x45, 0x4C, 0x46]) }

    /// Judges the header and the program headers. `head` is the file's beginning, with `isPresent`.
    init(head: [UInt8], file: KernelFile) throws(BootError) {
        let source = file.source
        self.file = file
        let header = ByteImage(head)
        guard head.count >= 52, head[4] != 2 || head.count >= 64 else {
            throw source.truncated("ends inside the ELF header")
        }
        guard head[4] == 1 || head[4] == 2 else { throw source.malformed("is ELF of the unknown class \(head[4])") }
        is64Bit = head[4] == 2
        guard head[5] == 1 else {
            throw source.error(.unsupported, "is an ELF file with the big end first", mend: "give a kernel for x86")
        }
        let machine = header.read(UInt16.self, at: 18)
        guard machine == Self.EM_386 || machine == Self.EM_X86_64 else {
            throw source.error(
                .notAKernel, "is an ELF file for \(Self.machineName(machine))", mend: "give a kernel for x86-64")
        }
        isX86_64 = machine == Self.EM_X86_64
        switch header.read(UInt16.self, at: 16) {
        case 2, 3: break
        case 1:
            throw source.error(
                .notAKernel, "is an object file or kernel module, not linked to run", mend: "give the kernel itself")
        case let type:
            throw source.error(
                .notAKernel, "is an ELF file of type \(type), not an executable", mend: "give the kernel itself")
        }

        let tableOffset: UInt64
        if is64Bit {
            entry = header.read(UInt64.self, at: 24)
            tableOffset = header.read(UInt64.self, at: 32)
        } else {
            entry = UInt64(header.read(UInt32.self, at: 24))
            tableOffset = UInt64(header.read(UInt32.self, at: 28))
        }
        let entrySize = Int(header.read(UInt16.self, at: is64Bit ? 54 : 42))
        let count = Int(header.read(UInt16.self, at: is64Bit ? 56 : 44))
        guard count > 0 else { throw source.malformed("is an ELF file without program headers") }
        let wantedSize = is64Bit ? 56 : 32
        guard entrySize == wantedSize else {
            throw source.malformed(
                "has ELF program headers of \(entrySize) bytes each, where the format has \(wantedSize)")
        }
        let table = ByteImage(try file.read(at: tableOffset, count: count * entrySize, part: "the ELF program headers"))
        var segments: [Segment] = []
        for index in 0..<count {
            let segment = Self.segment(table, at: index * entrySize, is64Bit: is64Bit)
            if segment.type == Self.PT_LOAD && segment.fileSize > segment.memorySize {
                throw source.malformed(
                    "has ELF segment \(index) with \(segment.fileSize) bytes in the file and only \(segment.memorySize) in memory"
                )
            }
            segments.append(segment)
        }
        self.segments = segments
    }

    private static func segment(_ table: ByteImage, at offset: Int, is64Bit: Bool) -> Segment {
        if is64Bit {
            return Segment(
                type: table.read(UInt32.self, at: offset), fileOffset: table.read(UInt64.self, at: offset + 8),
                virtualAddress: table.read(UInt64.self, at: offset + 16),
                physicalAddress: table.read(UInt64.self, at: offset + 24),
                fileSize: table.read(UInt64.self, at: offset + 32), memorySize: table.read(UInt64.self, at: offset + 40)
            )
        }
        func word(_ field: Int) -> UInt64 { UInt64(table.read(UInt32.self, at: offset + field)) }
        return Segment(
            type: table.read(UInt32.self, at: offset), fileOffset: word(4), virtualAddress: word(8),
            physicalAddress: word(12), fileSize: word(16), memorySize: word(20))
    }

    /// Claims all loadable segments, then copies them to their physical addresses and zeroes what the file does not fill.
    /// Returns the first address past the highest.
    @discardableResult
    func loadSegments(below limit: UInt64, _ boot: inout Boot) throws(BootError) -> UInt64 {
        var end: UInt64 = 0
        for (index, segment) in segments.enumerated() where segment.type == Self.PT_LOAD {
            try boot.placements.claim(
                "ELF segment \(index)", at: segment.physicalAddress, size: segment.memorySize, below: limit,
                for: file.source)
        }
        for (index, segment) in segments.enumerated() where segment.type == Self.PT_LOAD && segment.memorySize > 0 {
            try file.copy(
                at: segment.fileOffset, count: segment.fileSize, into: boot.memory, at: segment.physicalAddress,
                part: "ELF segment \(index)")
            try boot.zero(segment.physicalAddress + segment.fileSize, count: segment.memorySize - segment.fileSize)
            end = max(end, segment.physicalAddress + segment.memorySize)
        }
        guard end > 0 else { throw file.source.malformed("is an ELF file with nothing to load") }
        return end
    }

    /// Whether a loadable segment has this physical address.
    func isLoaded(physical address: UInt64) -> Bool {
        segments.contains { $0.type == Self.PT_LOAD && address &- $0.physicalAddress < $0.memorySize }
    }

    /// The entry as a physical address: linkers give it as a virtual one where the two differ. Nil if no segment has it.
    var physicalEntry: UInt64? {
        for segment in segments where segment.type == Self.PT_LOAD {
            let offset = entry &- segment.virtualAddress
            if offset < segment.memorySize { return segment.physicalAddress &+ offset }
        }
        return isLoaded(physical: entry) ? entry : nil
    }

    /// `startup_64` if this looks like 64-bit Linux: the entry is physical, while the segment that has it is linked 2 GiB below the top
    /// of the address space (`__START_KERNEL_map`).
    var linuxEntry: UInt64? {
        let kernelMap: UInt64 = 0xFFFF_FFFF_8000_0000
        guard is64Bit, isX86_64 else { return nil }
        let isLinux = segments.contains {
            $0.type == Self.PT_LOAD && entry &- $0.physicalAddress < $0.memorySize
                && $0.virtualAddress == kernelMap &+ $0.physicalAddress
        }
        return isLinux ? entry : nil
    }

    private static func machineName(_ machine: UInt16) -> String {
        switch machine {
        case 8: "MIPS"
        case 20, 21: "PowerPC"
        case 22: "S/390"
        case 40: "32-bit ARM"
        case 183: "64-bit ARM"
        case 243: "RISC-V"
        case 258: "LoongArch"
        default: "another processor (number \(machine))"
        }
    }
}
