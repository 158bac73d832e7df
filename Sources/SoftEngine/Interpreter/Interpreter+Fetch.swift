import CDavit
import X86

// From the instruction pointer to decoded instructions.
extension Interpreter {
    /// The linear address of an offset in the code segment, canonical or within the limit; else #GP(0).
    @inline(__always)
    func fetchAddress(_ rip: UInt64) throws(GuestFault) -> UInt64 {
        if is64Bit {
            guard Self.isCanonical(rip) else { throw .generalProtection }
            return rip
        }
        let code = segments[Int(DAVIT_CS.rawValue)]
        guard rip <= UInt64(code.limit) else { throw .generalProtection }
        return (code.base &+ rip) & 0xFFFF_FFFF
    }

    /// Where the instruction bytes at a linear address stand in the host; nil if they are not in RAM.
    @inline(__always)
    func fetchPointer(_ linear: UInt64) throws(GuestFault) -> UnsafeMutableRawPointer? {
        let tlb = davit_cpu_fetch_tlb(cpu, cpu.pointee.cpl == 3 ? 0 : 1)
        let i = Int(truncatingIfNeeded: linear >> 12) & (Int(DAVIT_TLB_ENTRIES) - 1)
        if davit_tlb_hits(davit_tlb_read_tag(tlb)[i], linear, 1) {
            return UnsafeMutableRawPointer(bitPattern: UInt(linear &+ davit_tlb_addend(tlb)[i]))
        }
        return try missedFetch(linear)
    }

    private func missedFetch(_ linear: UInt64) throws(GuestFault) -> UnsafeMutableRawPointer? {
        let translation = try fetchTranslation(linear)
        let physical = translation & ~PageRights.mask
        guard let host = hostAddress(physical: physical), physical != cpu.pointee.apic_page else { return nil }
        fillFetchTLB(
            user: cpu.pointee.cpl == 3, linear: linear, host: host, isGlobal: translation & PageRights.global != 0)
        return host + Int(linear & 0xFFF)
    }

    /// The physical page that instructions at a linear address come from, with its rights.
    private func fetchTranslation(_ linear: UInt64) throws(GuestFault) -> UInt64 {
        let mode = cpu.pointee.cpl == 3 ? DAVIT_TLB_USER.rawValue : DAVIT_TLB_KERNEL_AC.rawValue
        return try translate(linear, mode: mode, kind: .fetch)
    }

    /// The block at the instruction pointer, decoded if it is not cached or has changed; nil if its first instruction reaches into the
    /// next page or past the segment's limit, or is not in RAM: then it is fetched by itself.
    @inline(__always)
    func findBlock() throws(GuestFault) -> UnsafeMutablePointer<CachedBlock>? {
        let rip = cpu.pointee.rip
        guard let host = try fetchPointer(try fetchAddress(rip)) else { return nil }
        // Safe: `host` lies in RAM, which begins at `ramBase`.
        let physical = UInt64(UInt(bitPattern: host) &- UInt(bitPattern: ramBase))
        let codeSize = cpu.pointee.code_size
        if let block = cache.find(physical: physical, codeSize: codeSize) {
            if block.pointee.generation != code.currentGeneration(of: physical) {
                guard isStillThere(block, host) else { return try decodeBlock(host, physical: physical) }
            }
            guard codeSize == 8 || fits(block, rip: rip) else { return nil }
            return block
        }
        return try decodeBlock(host, physical: physical)
    }

    /// Legacy code segments have limits.
    private func fits(_ block: UnsafeMutablePointer<CachedBlock>, rip: UInt64) -> Bool {
        rip &+ UInt64(block.pointee.byteCount) &- 1 <= UInt64(segments[Int(DAVIT_CS.rawValue)].limit)
    }

    /// Compares a block that was cached before the page last changed. If its bytes are the same it is good again.
    private func isStillThere(_ block: UnsafeMutablePointer<CachedBlock>, _ host: UnsafeMutableRawPointer) -> Bool {
        let physical = block.pointee.physical
        markCode(physical, size: UInt64(block.pointee.byteCount))
        let generation = code.currentGeneration(of: physical)
        guard cache.matches(block, host) else {
            cache.remove(block)
            return false
        }
        block.pointee.generation = generation
        return true
    }

    /// Code from there is about to be cached: nobody may write to the page unseen any more.
    func markCode(_ physical: UInt64, size: UInt64) {
        guard code.mark(at: physical, size: size) else { return }
        dropWriteTags(physical: physical & ~0xFFF)
        if let gates, let gate {
            gate.leave()
            gates.dropWriteTags(exceptOf: gate)
            enterGuest()
        }
        if system.pointee.standsIn { code.observer.willCache(page: physical >> 12) }
    }

    private func decodeBlock(
        _ host: UnsafeMutableRawPointer, physical: UInt64
    ) throws(GuestFault) -> UnsafeMutablePointer<CachedBlock>? {
        var room = 4096 &- Int(truncatingIfNeeded: physical & 0xFFF)
        if !is64Bit {
            let limit = UInt64(segments[Int(DAVIT_CS.rawValue)].limit)
            room = min(room, Int(truncatingIfNeeded: limit &- cpu.pointee.rip &+ 1))
        }
        let target = cache.roomForBlock()
        let generation = code.currentGeneration(of: physical)
        let codeSize = cpu.pointee.code_size
        let source = UnsafePointer(host.assumingMemoryBound(to: UInt8.self))
        var position = 0
        var count = 0
        while count < InstructionCache.longestBlock && position < room {
            markCode(
                physical &+ UInt64(position), size: UInt64(min(Instruction.maximumLength, room &- position)))
            let outcome = decoder.decode(
                source + position, available: room &- position, codeSize: codeSize, into: &target[count])
            // What reaches over the end, or is too long, is looked at when control comes to it.
            guard outcome == .decoded else { break }
            position &+= Int(target[count].length)
            count &+= 1
            if target[count &- 1].operation.endsBlock { break }
        }
        guard count > 0 else { return nil }
        return cache.insert(
            physical: physical, generation: generation, codeSize: codeSize, count: count, source: host,
            byteCount: position)
    }

    /// Fetches and decodes the one instruction at the instruction pointer, wherever its bytes are. #PF, #GP for code segment limits and
    /// for lengths over 15.
    func fetchSingle(into instruction: inout Instruction) throws(GuestFault) {
        let rip = cpu.pointee.rip
        let start = try fetchAddress(rip)
        if is64Bit, let host = try fetchPointer(start) {
            // Safe: the page is RAM to its end.
            let outcome = decoder.decode(
                UnsafePointer(host.assumingMemoryBound(to: UInt8.self)), available: 4096 &- Int(start & 0xFFF),
                codeSize: 8,
                into: &instruction)
            if outcome == .decoded { return }
        }
        var bytes: (UInt64, UInt64) = (0, 0)
        var available = 0
        // Byte by byte: a fault further on counts only if the instruction reaches there.
        while true {
            let linear = try fetchAddress(rip &+ UInt64(available))
            let byte = try fetchByte(linear)
            withUnsafeMutableBytes(of: &bytes) { $0[available] = byte }
            available &+= 1
            let count = available
            let outcome = withUnsafeBytes(of: &bytes) { buffer in
                // Safe: 16 bytes, of which `count` (15 at most) are read.
                decoder.decode(
                    buffer.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self), available: count,
                    codeSize: cpu.pointee.code_size, into: &instruction)
            }
            switch outcome {
            case .decoded: return
            case .tooLong: throw .generalProtection
            case .needsMoreBytes: if available == Instruction.maximumLength { throw .generalProtection }
            }
        }
    }

    private func fetchByte(_ linear: UInt64) throws(GuestFault) -> UInt8 {
        if let host = try fetchPointer(linear) { return host.load(as: UInt8.self) }
        let physical = try fetchTranslation(linear) & ~PageRights.mask | linear & 0xFFF
        return UInt8(truncatingIfNeeded: readPhysical(physical, size: 1))
    }
}

extension Operation {
    /// Nothing that follows in memory runs next.
    var endsBlock: Bool {
        switch self {
        case .invalid, .ud, .jmp, .jmpIndirect, .call, .callIndirect, .ret, .jmpFar, .callFar, .jmpFarIndirect,
            .callFarIndirect, .retFar, .iret, .int, .int3, .syscall, .sysret, .sysenter, .sysexit, .hlt:
            true
        default: false
        }
    }
}
