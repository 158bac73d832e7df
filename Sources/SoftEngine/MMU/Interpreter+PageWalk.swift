import CDavit
import X86

// Page walks of every paging mode (Intel SDM vol. 3, 4.3-4.8): none, 32-bit, PAE, 4-level. 5-level paging is not offered.
extension Interpreter {
    /// The physical page and rights of a linear address, from the second-level TLB or by a walk, checked for the access.
    /// `mode` is of enum davit_tlb_mode. Throws #PF with CR2 set.
    func translate(_ linear: UInt64, mode: UInt32, kind: AccessKind) throws(GuestFault) -> UInt64 {
        let translation = try findTranslation(linear, mode: mode, kind: kind)
        if system.pointee.standsIn { try declinePage(translation) }
        return translation
    }

    @inline(__always)
    private func findTranslation(_ linear: UInt64, mode: UInt32, kind: AccessKind) throws(GuestFault) -> UInt64 {
        guard cpu.pointee.cr0 & CR0.PG != 0 else {
            return linear & 0xFFFF_F000 | PageRights.user | PageRights.writable | PageRights.dirty
        }
        system.pointee.firstLevelMisses &+= 1
        if let cached = cachedTranslation(linear), permits(cached, mode: mode, kind: kind),
            kind != .write || cached & PageRights.dirty != 0
        {
            return cached
        }
        system.pointee.secondLevelMisses &+= 1
        let translation = try walk(linear, mode: mode, kind: kind)
        cacheTranslation(translation, linear: linear)
        return translation
    }

    /// The access is within the rights of a present page (SDM vol. 3, 4.6.1).
    @inline(__always)
    func permits(_ rights: UInt64, mode: UInt32, kind: AccessKind) -> Bool {
        guard kind == .fetch else { return davit_permits_data(cpu, rights, mode, kind == .write) }
        let isUserPage = rights & PageRights.user != 0
        if mode == DAVIT_TLB_USER.rawValue { return isUserPage && rights & PageRights.noExecute == 0 }
        return rights & PageRights.noExecute == 0 && !(isUserPage && cpu.pointee.cr4 & CR4.SMEP != 0)
    }

    /// #PF for an access, with CR2 set.
    func pageFault(_ linear: UInt64, mode: UInt32, kind: AccessKind, _ cause: UInt32) -> GuestFault {
        var code = cause
        if mode == DAVIT_TLB_USER.rawValue { code |= PageFaultError.user }
        if kind == .write { code |= PageFaultError.write }
        if kind == .fetch {
            let usesNX = cpu.pointee.cr4 & CR4.PAE != 0 && cpu.pointee.efer & EFER.NXE != 0
            if usesNX || cpu.pointee.cr4 & CR4.SMEP != 0 { code |= PageFaultError.fetch }
        }
        cpu.pointee.cr2 = linear
        return GuestFault(.PF, errorCode: code)
    }

    private func walk(_ linear: UInt64, mode: UInt32, kind: AccessKind) throws(GuestFault) -> UInt64 {
        // Another vCPU may change an entry between the read and the setting of its accessed bit: then the walk starts over.
        while true {
            let result =
                cpu.pointee.cr4 & CR4.PAE == 0
                ? try walk32(linear, mode: mode, kind: kind) : try walk64(linear, mode: mode, kind: kind)
            if let result { return result }
        }
    }

    /// 32-bit paging: two levels of 4-byte entries, pages of 4 KiB or 4 MiB with 40-bit addresses (PSE-36).
    private func walk32(_ linear: UInt64, mode: UInt32, kind: AccessKind) throws(GuestFault) -> UInt64? {
        let directory = (cpu.pointee.cr3 & 0xFFFF_F000) &+ (linear >> 22 & 0x3FF) &* 4
        let pde = readEntry32(directory)
        guard pde & PageEntry.P != 0 else { throw pageFault(linear, mode: mode, kind: kind, 0) }
        if pde & PageEntry.PS != 0 && cpu.pointee.cr4 & CR4.PSE != 0 {
            if pde & 1 << 21 != 0 {
                throw pageFault(linear, mode: mode, kind: kind, PageFaultError.present | PageFaultError.reserved)
            }
            let page = (pde & 0xFFC0_0000 | (pde >> 13 & 0xFF) << 32) &+ (linear & 0x3F_F000)
            return try finish32(
                entry: pde, at: directory, page: page, rights: pde & 6, large: PageRights.large, linear, mode, kind)
        }
        guard setAccessed32(pde, at: directory, bits: PageEntry.A) else { return nil }
        let table = (pde & 0xFFFF_F000) &+ (linear >> 12 & 0x3FF) &* 4
        let pte = readEntry32(table)
        guard pte & PageEntry.P != 0 else { throw pageFault(linear, mode: mode, kind: kind, 0) }
        return try finish32(
            entry: pte, at: table, page: pte & 0xFFFF_F000, rights: pde & pte & 6, large: 0, linear, mode, kind)
    }

    private func finish32(
        entry: UInt64, at address: UInt64, page: UInt64, rights: UInt64, large: UInt64, _ linear: UInt64,
        _ mode: UInt32,
        _ kind: AccessKind
    ) throws(GuestFault) -> UInt64? {
        var translation = page | rightsOf(entry: entry, combined: rights) | large
        guard permits(translation, mode: mode, kind: kind) else {
            throw pageFault(linear, mode: mode, kind: kind, PageFaultError.present)
        }
        var bits = PageEntry.A
        if kind == .write {
            bits |= PageEntry.D
            translation |= PageRights.dirty
        }
        return setAccessed32(entry, at: address, bits: bits) ? translation : nil
    }

    /// PAE and 4-level paging: 8-byte entries.
    private func walk64(_ linear: UInt64, mode: UInt32, kind: AccessKind) throws(GuestFault) -> UInt64? {
        let isLong = cpu.pointee.efer & EFER.LMA != 0
        let hasNX = cpu.pointee.efer & EFER.NXE != 0
        // Bits that must be clear in every present entry.
        var reserved = PageEntry.addressMask & ~(UInt64.max >> (64 &- physicalAddressBits))
        if !hasNX { reserved |= PageEntry.XD }
        if !isLong { reserved |= 0x7FF0_0000_0000_0000 }

        var table: UInt64
        var level: UInt64
        if isLong {
            table = cpu.pointee.cr3 & PageEntry.addressMask
            level = 4
        } else {
            let pdpte = withUnsafeBytes(of: system.pointee.pdpte) { entries in
                // Safe: two bits index four words.
                entries.loadUnaligned(fromByteOffset: Int(linear >> 30 & 3) &* 8, as: UInt64.self)
            }
            guard pdpte & PageEntry.P != 0 else { throw pageFault(linear, mode: mode, kind: kind, 0) }
            table = pdpte & PageEntry.addressMask
            level = 2
        }
        var rights = PageEntry.RW | PageEntry.US
        var noExecute: UInt64 = 0
        while true {
            let shift = 3 &+ 9 &* level
            let address = table &+ (linear >> shift & 0x1FF) &* 8
            let entry = readEntry64(address)
            guard entry & PageEntry.P != 0 else { throw pageFault(linear, mode: mode, kind: kind, 0) }
            rights &= entry
            noExecute |= entry & PageEntry.XD
            let isLeaf = level == 1 || level <= 3 && entry & PageEntry.PS != 0
            // A page of 2 MiB or 1 GiB has its PAT bit at 12; from 13 to the page's size all is reserved. PML4E bit 7 is too.
            let span: UInt64 = 1 << shift &- 1
            var invalid = entry & reserved
            if isLeaf && level > 1 { invalid |= entry & span & ~0x1FFF }
            if level == 4 { invalid |= entry & PageEntry.PS }
            if invalid != 0 {
                throw pageFault(linear, mode: mode, kind: kind, PageFaultError.present | PageFaultError.reserved)
            }
            guard isLeaf else {
                guard setAccessed64(entry, at: address, bits: PageEntry.A) else { return nil }
                table = entry & PageEntry.addressMask
                level &-= 1
                continue
            }
            let within = span & ~0xFFF
            let page = entry & PageEntry.addressMask & ~within | linear & within
            var translation = page | rightsOf(entry: entry, combined: rights)
            if noExecute != 0 { translation |= PageRights.noExecute }
            if level == 2 { translation |= PageRights.large }
            if level == 3 { translation |= PageRights.huge }
            guard permits(translation, mode: mode, kind: kind) else {
                throw pageFault(linear, mode: mode, kind: kind, PageFaultError.present)
            }
            var bits = PageEntry.A
            if kind == .write {
                bits |= PageEntry.D
                translation |= PageRights.dirty
            }
            return setAccessed64(entry, at: address, bits: bits) ? translation : nil
        }
    }

    @inline(__always)
    private func rightsOf(entry: UInt64, combined: UInt64) -> UInt64 {
        var rights: UInt64 = 0
        if combined & PageEntry.US != 0 { rights |= PageRights.user }
        if combined & PageEntry.RW != 0 { rights |= PageRights.writable }
        if entry & PageEntry.G != 0 && cpu.pointee.cr4 & CR4.PGE != 0 { rights |= PageRights.global }
        if entry & PageEntry.D != 0 { rights |= PageRights.dirty }
        return rights
    }

    // Entries are naturally aligned, so that the host reads and exchanges them in one piece. What is not RAM reads as all ones
    // and takes no bits; ROM takes none either.

    private func readEntry32(_ address: UInt64) -> UInt64 {
        guard let place = hostAddress(physical: address) else { return 0xFFFF_FFFF }
        return UInt64(place.load(as: UInt32.self))
    }

    private func readEntry64(_ address: UInt64) -> UInt64 {
        guard let place = hostAddress(physical: address) else { return UInt64.max }
        return place.load(as: UInt64.self)
    }

    /// False if the entry has changed meanwhile.
    private func setAccessed32(_ entry: UInt64, at address: UInt64, bits: UInt64) -> Bool {
        guard entry & bits != bits, let place = writableHostAddress(physical: address) else { return true }
        guard
            davit_atomic_exchange32(
                place, UInt32(truncatingIfNeeded: entry), UInt32(truncatingIfNeeded: entry | bits))
        else { return false }
        didStore(physical: address, size: 4)
        return true
    }

    private func setAccessed64(_ entry: UInt64, at address: UInt64, bits: UInt64) -> Bool {
        guard entry & bits != bits, let place = writableHostAddress(physical: address) else { return true }
        guard davit_atomic_exchange64(place, entry, entry | bits) else { return false }
        didStore(physical: address, size: 8)
        return true
    }

    /// Reads PAE's four page-directory-pointer entries as MOV to CR3 does; throws #GP if one has reserved bits set.
    func loadPageDirectoryPointers(cr3: UInt64) throws(GuestFault) {
        let table = cr3 & 0xFFFF_FFE0
        let reserved = 0x1E6 | ~(UInt64.max >> (64 &- physicalAddressBits))
        let entries = (
            readEntry64(table), readEntry64(table &+ 8), readEntry64(table &+ 16), readEntry64(table &+ 24)
        )
        func isBad(_ entry: UInt64) -> Bool { entry & PageEntry.P != 0 && entry & reserved != 0 }
        if isBad(entries.0) || isBad(entries.1) || isBad(entries.2) || isBad(entries.3) { throw .generalProtection }
        system.pointee.pdpte = entries
    }
}

/// Bits of paging-structure entries (SDM vol. 3, tables 4-5 to 4-20).
enum PageEntry {
    static let P: UInt64 = 1 << 0
    static let RW: UInt64 = 1 << 1
    static let US: UInt64 = 1 << 2
    static let A: UInt64 = 1 << 5
    static let D: UInt64 = 1 << 6
    static let PS: UInt64 = 1 << 7
    static let G: UInt64 = 1 << 8
    static let XD: UInt64 = 1 << 63
    static let addressMask: UInt64 = 0x000F_FFFF_FFFF_F000
}
