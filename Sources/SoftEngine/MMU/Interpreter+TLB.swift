import CDavit
import X86

// The TLBs of one vCPU. First level: `davit_cpu.tlb` and `fetch_tlb_*`, probed inline. Second level: `translations`, tagged
// with PCIDs, so that a switch of address spaces empties the first level only.
extension Interpreter {
    private static var indexMask: UInt64 { UInt64(DAVIT_TLB_ENTRIES) &- 1 }

    // MARK: Second level

    func cachedTranslation(_ linear: UInt64) -> UInt64? {
        let translation = davit_cached_translation(cpu, linear)
        return translation == UInt64.max ? nil : translation
    }

    func cacheTranslation(_ translation: UInt64, linear: UInt64) {
        let isGlobal = translation & PageRights.global != 0
        let pcid = cpu.pointee.pcid
        davit_translation_slot(cpu, linear, isGlobal ? UInt64(DAVIT_GLOBAL_PCID) : pcid).pointee = davit_translation(
            tag: linear & ~0xFFF | (isGlobal ? 0 : pcid), translation: translation,
            generation: isGlobal ? cpu.pointee.global_generation : pcidGenerations[Int(pcid)], unused: 0)
        if translation & PageRights.large != 0 { noteLarge(linear) }
        if translation & PageRights.huge != 0 { system.pointee.hugeRegions |= regionBit(linear >> 30) }
    }

    /// A filter of 4096 bits over the 4 MiB regions of which a part of a large page is cached.
    @inline(__always)
    private func largeRegion(_ linear: UInt64) -> Int { Int((linear >> 22 ^ linear >> 34) & 4095) }

    private func noteLarge(_ linear: UInt64) {
        let region = largeRegion(linear)
        largeRegions[region >> 6] |= 1 << UInt64(region & 63)
    }

    private func mayHoldLarge(_ linear: UInt64) -> Bool {
        let region = largeRegion(linear)
        return largeRegions[region >> 6] & 1 << UInt64(region & 63) != 0
    }

    @inline(__always)
    private func regionBit(_ region: UInt64) -> UInt64 { 1 << ((region ^ region >> 6 ^ region >> 12) & 63) }

    // MARK: First level

    /// `user`: the TLB of fetches at CPL 3.
    func fillFetchTLB(user: Bool, linear: UInt64, host: UnsafeMutableRawPointer, isGlobal: Bool) {
        let number: UInt32 = user ? 0 : 1
        let tlb = davit_cpu_fetch_tlb(cpu, number)
        let page = linear & ~0xFFF
        let i = Int(page >> 12 & Self.indexMask)
        davit_cpu_tlb_groups(cpu)[Int(DAVIT_TLB_MODES.rawValue + number)] |= Self.groupBit(i)
        if !isGlobal { cpu.pointee.local_tlbs |= 1 << (DAVIT_TLB_MODES.rawValue + number) }
        if isGlobal && user { system.pointee.jumpTags.hasGlobalUserCode = true }
        davit_tlb_read_tag(tlb)[i] = 0 &- page
        davit_tlb_addend(tlb)[i] = UInt64(UInt(bitPattern: host)) &- page
    }

    /// Entries to a bit of `davit_cpu.tlb_groups`.
    private static var groupSize: Int { Int(DAVIT_TLB_ENTRIES) / 64 }

    @inline(__always)
    private static func groupBit(_ i: Int) -> UInt64 { 1 << UInt64(truncatingIfNeeded: i / groupSize) }

    /// Empties the first level, and the jump cache with the fetches of its half; its second level only where no address space is left
    /// behind. With `keepingGlobal` a TLB that holds nothing but global pages stays as it is: a kernel's, across a switch of address
    /// spaces.
    func flushFirstLevel(keepingGlobal: Bool = false) {
        let groups = davit_cpu_tlb_groups(cpu)
        let leaving = keepingGlobal ? cpu.pointee.local_tlbs : UInt32.max
        for number in 0..<Int(DAVIT_TLB_MODES.rawValue) + 2 where leaving & 1 << UInt32(number) != 0 {
            let fetch = number - Int(DAVIT_TLB_MODES.rawValue)
            let tlb = fetch < 0 ? davit_cpu_tlb(cpu, UInt32(number)) : davit_cpu_fetch_tlb(cpu, UInt32(fetch))
            var bits = groups[number]
            while bits != 0 {
                let first = bits.trailingZeroBitCount * Self.groupSize
                (davit_tlb_read_tag(tlb) + first).update(
                    from: davit_tlb_read_tag(emptyTLB) + first, count: Self.groupSize)
                (davit_tlb_write_tag(tlb) + first).update(
                    from: davit_tlb_write_tag(emptyTLB) + first, count: Self.groupSize)
                bits &= bits &- 1
            }
            groups[number] = 0
            if fetch >= 0 { JumpCache.clear(cpu, half: fetch) }
            if fetch == 1 { forgetKernelJumps() }
        }
        cpu.pointee.local_tlbs &= ~leaving
        system.pointee.jumpTags.isStale = true
        if !keepingGlobal { forgetAllJumps() }
    }

    static func empty(_ tlb: UnsafeMutablePointer<davit_tlb>) {
        let read = davit_tlb_read_tag(tlb)
        let write = davit_tlb_write_tag(tlb)
        for i in 0..<Int(DAVIT_TLB_ENTRIES) {
            read[i] = davit_tlb_invalid_tag(UInt64(i))
            write[i] = davit_tlb_invalid_tag(UInt64(i))
        }
    }

    /// Empties everything: global pages and all PCIDs.
    func flushTLB() {
        system.pointee.translationsChanged = true
        cpu.pointee.global_generation &+= 1
        for pcid in 0..<4096 { pcidGenerations[pcid] &+= 1 }
        largeRegions.update(repeating: 0, count: Self.largeRegionWords)
        system.pointee.hugeRegions = 0
        flushFirstLevel()
    }

    /// Empties what is not global of one PCID.
    func flushTLB(pcid: UInt64) {
        system.pointee.translationsChanged = true
        pcidGenerations[Int(pcid & 0xFFF)] &+= 1
        forgetJumps(pcid: pcid & 0xFFF)
        if pcid == cpu.pointee.pcid { flushFirstLevel(keepingGlobal: true) }
    }

    /// INVLPG: the page in this address space, global or not.
    func flushTLB(page linear: UInt64) {
        system.pointee.translationsChanged = true
        if mayHoldLarge(linear) {
            dropTranslations(of: PageRights.large, sharing: linear >> 22, shift: 22)
        }
        if system.pointee.hugeRegions & regionBit(linear >> 30) != 0 {
            dropTranslations(of: PageRights.huge, sharing: linear >> 30, shift: 30)
        }
        for pcid in [cpu.pointee.pcid, UInt64(DAVIT_GLOBAL_PCID)] {
            let slot = davit_translation_slot(cpu, linear, pcid)
            if (slot.pointee.tag ^ linear) >> 12 == 0 { slot.pointee.generation = 0 }
        }
        let i = Int(linear >> 12 & Self.indexMask)
        for mode in 0..<UInt32(DAVIT_TLB_MODES.rawValue) {
            davit_tlb_read_tag(davit_cpu_tlb(cpu, mode))[i] = davit_tlb_invalid_tag(UInt64(i))
            davit_tlb_write_tag(davit_cpu_tlb(cpu, mode))[i] = davit_tlb_invalid_tag(UInt64(i))
        }
        davit_tlb_read_tag(davit_cpu_fetch_tlb(cpu, 0))[i] = davit_tlb_invalid_tag(UInt64(i))
        davit_tlb_read_tag(davit_cpu_fetch_tlb(cpu, 1))[i] = davit_tlb_invalid_tag(UInt64(i))
        forgetJumps(page: linear)
    }

    private func dropTranslations(of size: UInt64, sharing region: UInt64, shift: UInt64) {
        for i in 0..<Int(DAVIT_TRANSLATIONS)
        where translations[i].translation & size != 0 && translations[i].tag >> shift == region {
            translations[i].generation = 0
        }
        flushFirstLevel()
    }

    /// Drops the write tags of a physical page, by whatever linear address it is reached: its code is about to be cached.
    func dropWriteTags(physical page: UInt64) {
        guard let host = hostAddress(physical: page) else { return }
        let target = UInt64(UInt(bitPattern: host))
        for mode in 0..<UInt32(DAVIT_TLB_MODES.rawValue) {
            let tlb = davit_cpu_tlb(cpu, mode)
            let tags = davit_tlb_write_tag(tlb)
            let addends = davit_tlb_addend(tlb)
            for i in 0..<Int(DAVIT_TLB_ENTRIES) where addends[i] &- tags[i] == target {
                tags[i] = davit_tlb_invalid_tag(UInt64(i))
            }
        }
    }

    /// Drops the write tags of all pages.
    func dropAllWriteTags() {
        for mode in 0..<UInt32(DAVIT_TLB_MODES.rawValue) {
            let tags = davit_tlb_write_tag(davit_cpu_tlb(cpu, mode))
            for i in 0..<Int(DAVIT_TLB_ENTRIES) { tags[i] = davit_tlb_invalid_tag(UInt64(i)) }
        }
    }

    // MARK: The mode in force

    /// To be called when CPL, EFLAGS.AC, CR0.AM, CR4.SMAP or the breakpoints have changed: chooses the TLB that data accesses probe.
    /// Where alignment is checked or data watched that is one which stays empty, so that every access takes the slow path.
    func updateMode() {
        let isUser = cpu.pointee.cpl == 3
        let hasAC = cpu.pointee.rflags & RFLAGS.AC != 0
        let mode: davit_tlb_mode =
            isUser
            ? DAVIT_TLB_USER : cpu.pointee.cr4 & CR4.SMAP != 0 && !hasAC ? DAVIT_TLB_KERNEL : DAVIT_TLB_KERNEL_AC
        let checksAlignment = isUser && hasAC && cpu.pointee.cr0 & CR0.AM != 0
        system.pointee.checksAlignment = checksAlignment
        cpu.pointee.tlb_mode = mode.rawValue
        cpu.pointee.tlb_current =
            checksAlignment || system.pointee.watchesData ? emptyTLB : davit_cpu_tlb(cpu, mode.rawValue)
    }

    /// The mode of accesses that the CPU makes to descriptor tables and task states: supervisor, EFLAGS.AC without a say.
    @inline(__always)
    var systemMode: UInt32 {
        cpu.pointee.cr4 & CR4.SMAP != 0 ? DAVIT_TLB_KERNEL.rawValue : DAVIT_TLB_KERNEL_AC.rawValue
    }
}
