import CDavit

/// Where translated code finds the code for a guest address, in two levels.
///
/// The first, `davit_cpu.jump_key`, is probed in line; it has a half for CPL 3 and one for kernels, each emptied with the first-level
/// TLB of its fetches. The second, `davit_cpu.jumps`, is tagged with address spaces, so that it outlives a switch of them.
enum JumpCache {
    /// Bits of RIP that select the first level's entry.
    static let indexMask: UInt64 = 0x17FE

    /// Where the half of a mode begins, in bytes from the start of either array.
    static func offset(_ mode: TranslationMode) -> Int { mode.isKernel ? 8 * Int(DAVIT_JUMP_ENTRIES) : 0 }

    @inline(__always)
    static func index(_ rip: UInt64) -> Int { Int(rip >> 1 & 0x3FF | rip >> 2 & 0x400) }

    /// The second level's entry for an address, whatever the mode and address space.
    @inline(__always)
    private static func slot(_ cpu: UnsafeMutablePointer<davit_cpu>, _ rip: UInt64) -> UnsafeMutablePointer<davit_jump>
    {
        cpu.pointee.jumps + Int(truncatingIfNeeded: (rip ^ rip >> 11) & UInt64(DAVIT_JUMPS - 1))
    }

    /// Empties one half of the first level: 0 that of CPL 3, 1 the kernels'. An empty entry's key belongs to a RIP that selects another
    /// entry, whatever the mode, so that no RIP finds it.
    static func clear(_ cpu: UnsafeMutablePointer<davit_cpu>, half: Int) {
        let size = Int(DAVIT_JUMP_ENTRIES) / 64
        let keys = davit_cpu_jump_key(cpu) + half * Int(DAVIT_JUMP_ENTRIES)
        var groups = davit_cpu_jump_groups(cpu)[half]
        while groups != 0 {
            let first = groups.trailingZeroBitCount * size
            (keys + first).update(from: emptyKeys + first, count: size)
            groups &= groups &- 1
        }
        davit_cpu_jump_groups(cpu)[half] = 0
    }

    /// Empties both levels.
    static func clear(_ cpu: UnsafeMutablePointer<davit_cpu>) {
        clear(cpu, half: 0)
        clear(cpu, half: 1)
        cpu.pointee.jumps.update(repeating: davit_jump(key: 0, target: 0), count: Int(DAVIT_JUMPS))
    }

    /// Empties the entries of one unit's start.
    static func remove(_ cpu: UnsafeMutablePointer<davit_cpu>, rip: UInt64, mode: Int32) {
        for half in 0..<2 {
            let place = davit_cpu_jump_key(cpu) + half * Int(DAVIT_JUMP_ENTRIES) + index(rip)
            if place.pointee == 0 &- rip &- UInt64(mode) { place.pointee = emptyKeys[index(rip)] }
        }
        // Under any tag.
        if (slot(cpu, rip).pointee.key ^ rip) << 16 == 0 { slot(cpu, rip).pointee.key = 0 }
    }

    /// Unsafe: written once, before it is first read; lives as long as the program.
    private nonisolated(unsafe) static let emptyKeys: UnsafePointer<UInt64> = {
        let keys = UnsafeMutablePointer<UInt64>.allocate(capacity: Int(DAVIT_JUMP_ENTRIES))
        for i in 0..<Int(DAVIT_JUMP_ENTRIES) { keys[i] = 0 &- UInt64((i & 0x3FF ^ 0x200) << 1) }
        return UnsafePointer(keys)
    }()

    /// Where the code for an address runs; nil if neither level knows. Tags are up to date.
    @inline(__always)
    static func find(
        _ cpu: UnsafeMutablePointer<davit_cpu>, rip: UInt64, mode: TranslationMode
    ) -> UnsafeMutablePointer<UInt8>? {
        let place = (mode.isKernel ? Int(DAVIT_JUMP_ENTRIES) : 0) + index(rip)
        if davit_cpu_jump_key(cpu)[place] == 0 &- rip &- UInt64(mode.number) {
            return UnsafeMutablePointer(bitPattern: UInt(davit_cpu_jump_target(cpu)[place]))
        }
        let entry = slot(cpu, rip)
        guard entry.pointee.key == rip ^ davit_cpu_jump_tags(cpu)[Int(mode.tlb)] else { return nil }
        return UnsafeMutablePointer(bitPattern: UInt(entry.pointee.target))
    }

    /// Enters where the code for an address runs into both levels. Tags are up to date.
    static func insert(
        _ cpu: UnsafeMutablePointer<davit_cpu>, rip: UInt64, mode: TranslationMode, target: UnsafeMutablePointer<UInt8>
    ) {
        let half = mode.isKernel ? 1 : 0
        let i = index(rip)
        davit_cpu_jump_groups(cpu)[half] |= 1 << UInt64(truncatingIfNeeded: i * 64 / Int(DAVIT_JUMP_ENTRIES))
        let place = half * Int(DAVIT_JUMP_ENTRIES) + i
        let target = UInt64(UInt(bitPattern: target))
        davit_cpu_jump_key(cpu)[place] = 0 &- rip &- UInt64(mode.number)
        davit_cpu_jump_target(cpu)[place] = target
        if mode.isKernel && rip >> 47 == 0 { cpu.pointee.kernel_runs_low = 1 }
        slot(cpu, rip).pointee = davit_jump(key: rip ^ davit_cpu_jump_tags(cpu)[Int(mode.tlb)], target: target)
    }
}

/// Which tags of the jump cache's second level stand for what: 10 bits for an address space (a PCID as of its last flush, or all kernels'),
/// below them 6 for the rest of the mode. A tag that is given up is not used again until the whole cache is emptied.
struct JumpTags: BitwiseCopyable {
    /// Of kernels; 0: to be chosen.
    var kernel: UInt16 = 0
    /// The next tag to give out.
    var next: UInt16 = 1
    /// `davit_cpu.jump_tags` must be computed anew before translated code runs.
    var isStale = true
    /// Code of CPL 3 has been fetched from global pages, which belong to every address space.
    var hasGlobalUserCode = false

    static let last: UInt16 = 0x3FE
    /// Entries of `Interpreter.pcidJumpTags`: the tag of each PCID, 0 to be chosen.
    static let pcidCount = 4096
    /// Words of `Interpreter.jumpPages`: a bit for each page that jumps lead to, by the low bits of its number.
    static let pageWords = 512
}

extension Interpreter {
    private func jumpPage(_ linear: UInt64) -> (word: Int, bit: UInt64) {
        let page = Int(truncatingIfNeeded: linear >> 12) & (JumpTags.pageWords * 64 - 1)
        return (page >> 6, 1 << UInt64(page & 63))
    }

    /// To be called before jumps to a page are entered into the jump cache.
    func noteJumps(to linear: UInt64) {
        let (word, bit) = jumpPage(linear)
        jumpPages[word] |= bit
    }

    /// What code an address space runs may have changed.
    func forgetJumps(pcid: UInt64) {
        pcidJumpTags[Int(pcid)] = 0
        system.pointee.jumpTags.isStale = true
    }

    func forgetKernelJumps() {
        system.pointee.jumpTags.kernel = 0
        system.pointee.jumpTags.isStale = true
    }

    func forgetAllJumps() {
        pcidJumpTags.update(repeating: 0, count: JumpTags.pcidCount)
        forgetKernelJumps()
    }

    /// A page may be mapped elsewhere now. Most that this is said of have never held code.
    func forgetJumps(page linear: UInt64) {
        let (word, bit) = jumpPage(linear)
        guard jumpPages[word] & bit != 0 else { return }
        JumpCache.clear(cpu, half: 0)
        if system.pointee.jumpTags.hasGlobalUserCode { forgetAllJumps() } else { forgetJumps(pcid: cpu.pointee.pcid) }
        // Kernels do not run below 2^47, if they can help it.
        if linear >> 47 != 0 || cpu.pointee.kernel_runs_low != 0 {
            JumpCache.clear(cpu, half: 1)
            forgetKernelJumps()
        }
    }

    /// Computes `davit_cpu.jump_tags` and `jump_numbers` for a mode and the address space in force.
    func updateJumpTags(_ mode: TranslationMode) {
        let pcid = Int(cpu.pointee.pcid)
        while pcidJumpTags[pcid] == 0 || system.pointee.jumpTags.kernel == 0 {
            if system.pointee.jumpTags.next > JumpTags.last - 1 {
                forgetAllJumps()
                JumpCache.clear(cpu)
                jumpPages.update(repeating: 0, count: JumpTags.pageWords)
                system.pointee.jumpTags.next = 1
            }
            if pcidJumpTags[pcid] == 0 { pcidJumpTags[pcid] = takeJumpTag() }
            if system.pointee.jumpTags.kernel == 0 { system.pointee.jumpTags.kernel = takeJumpTag() }
        }
        for tlb in 0..<UInt32(DAVIT_TLB_MODES.rawValue) {
            var other = mode
            other.tlb = tlb
            let space = other.isKernel ? system.pointee.jumpTags.kernel : pcidJumpTags[pcid]
            davit_cpu_jump_numbers(cpu)[Int(tlb)] = UInt64(other.number)
            davit_cpu_jump_tags(cpu)[Int(tlb)] = (UInt64(space) << 6 | UInt64(other.number / 2 - 1)) << 48
        }
        system.pointee.jumpTags.isStale = false
    }

    private func takeJumpTag() -> UInt16 {
        system.pointee.jumpTags.next += 1
        return system.pointee.jumpTags.next - 1
    }
}
