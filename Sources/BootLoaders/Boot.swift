import GuestMemory
import X86

/// One load under way: the request, the memory, and what has been put where.
struct Boot {
    let request: BootRequest
    let memory: GuestMemory
    let map: MemoryMap
    var placements: PlacementMap
    var warnings: [String] = []

    init(request: BootRequest, memory: GuestMemory) {
        self.request = request
        self.memory = memory
        map = MemoryMap(memory)
        placements = PlacementMap(memory, reserved: MemoryMap.reservedPlacements)
    }

    /// Carries out writes to places that were claimed, and so are RAM.
    func writing(_ body: () throws(NotRAM) -> Void) throws(BootError) {
        do throws(NotRAM) {
            try body()
        } catch {
            throw request.kernel.source.error(.doesNotFit, error.description, mend: "give more with --memory")
        }
    }

    /// Puts bytes of the loader's own into conventional memory, or above it if they do not fit, but below 4 GiB.
    mutating func place(_ name: String, _ bytes: [UInt8], alignment: UInt64 = 16) throws(BootError) -> UInt64 {
        let start = try placements.allocate(
            name, size: UInt64(bytes.count), alignment: alignment, in: 0..<MemoryMap.fourGiB, .lowest,
            for: request.kernel.source)
        try writing { () throws(NotRAM) in try memory.write(bytes: bytes, at: GuestPhysicalAddress(start)) }
        return start
    }

    /// Puts a string with its closing zero byte into memory.
    mutating func place(_ name: String, string: String) throws(BootError) -> UInt64 {
        try place(name, Array(string.utf8) + [0])
    }

    /// Puts a whole file into RAM on pages of its own, the rest of its last page zeroed.
    mutating func place(
        _ name: String, file: KernelFile, in range: Range<UInt64>, _ direction: PlacementMap.Direction
    ) throws(BootError) -> UInt64 {
        let page = GuestMemory.pageSize
        guard file.size <= memory.size else {
            throw file.source.error(
                .doesNotFit, "\(file.size >> 20) MiB are more than the machine's memory of \(memory.size >> 20) MiB",
                mend: "give more with --memory")
        }
        let whole = (file.size + page - 1) & ~(page - 1)
        let start = try placements.allocate(
            name, size: whole, alignment: page, in: range, direction, for: file.source)
        try file.copy(at: 0, count: file.size, into: memory, at: start, part: name)
        try zero(start + file.size, count: whole - file.size)
        return start
    }

    /// Zeroes RAM that was claimed.
    func zero(_ start: UInt64, count: UInt64) throws(BootError) {
        guard count > 0 else { return }
        try writing { () throws(NotRAM) in
            let address = GuestPhysicalAddress(start)
            guard let place = memory.pointer(at: address, count: count) else {
                throw NotRAM(address: address, count: count)
            }
            // Safe: `pointer` has checked that all `count` bytes are mapped RAM.
            UnsafeMutableRawBufferPointer(start: place, count: Int(count)).initializeMemory(
                as: UInt8.self, repeating: 0)
            memory.didWrite(at: address, count: count)
        }
    }

    /// The command line, refused if the kernel takes no more than `limit` bytes.
    func commandLine(limit: UInt64) throws(BootError) -> String {
        let count = request.commandLine.utf8.count
        guard UInt64(count) <= limit else {
            throw BootSource(flag: "--cmdline", file: "").error(
                .commandLineTooLong, "\(count) bytes are more than the \(limit) that \(request.kernel.path) takes",
                mend: "shorten it")
        }
        return request.commandLine
    }

    func finish(_ state: VCPUState, _ bootProtocol: BootProtocol, kernel: String) -> LoadedKernel {
        LoadedKernel(
            state: state, bootProtocol: bootProtocol, kernel: kernel, placements: placements.placements,
            warnings: warnings)
    }
}
