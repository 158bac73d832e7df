import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Page faults with their error codes, rights, accessed and dirty bits, and what the TLB may keep.
///
/// The tables are those of `GuestProgram`: PML4 at 0x100000, one PDPT, one PD with pages of 2 MiB. Entries of the second GiB's PD are
/// put up by each test at 0x103000, its page table at 0x104000.
@Suite struct PagingTests {
    /// Maps 0x40000000 + n * 4 KiB by the entries in `pages`, and runs `body` with handlers in place.
    private func guest(_ pages: [UInt64], efer: UInt64 = EFER.NXE, _ body: String) throws -> GuestProgram {
        let guest = try GuestProgram(GuestProgram.withHandlers(body + "\ncli\nhlt"), bits: 64) { state in
            state.efer |= efer
        }
        guest[0x10_1008, as: UInt64.self] = 0x10_3007
        guest[0x10_3000, as: UInt64.self] = 0x10_4007
        for (i, page) in pages.enumerated() { guest[0x10_4000 + UInt64(i) * 8, as: UInt64.self] = page }
        return guest
    }

    /// Runs `code` at privilege level 3.
    private func inUserMode(_ code: String) -> String {
        """
        push 0x23
        push 0x5000
        push 2
        push 0x1B
        lea rax, [rip + user]
        push rax
        iretq
        user:
        \(code)
        int 0x30
        """
    }

    @Test func absentPageOnReadAndWrite() throws {
        let guest = try guest(
            [0],
            """
            lea r15, [rip + 1f]
            mov eax, [0x40000123]
            1: lea r15, [rip + 2f]
            mov [0x40000456], eax
            2:
            """)
        guest.run()
        #expect(guest.reports == [14, 0, 0x4000_0123, 14, 2, 0x4000_0456])
    }

    @Test func userFaultsSayUser() throws {
        // Page 0 is the kernel's, page 1 read-only, page 2 must not be run.
        let guest = try guest(
            [0x20_0003, 0x20_1005, 1 << 63 | 0x20_2007],
            inUserMode(
                """
                lea r15, [rip + 1f]
                mov eax, [0x40000000]
                1: lea r15, [rip + 2f]
                mov [0x40001000], eax
                2: lea r15, [rip + 3f]
                mov eax, 0x40002010
                jmp rax
                3: mov ebx, [0x40001000]
                """))
        guest.run()
        #expect(
            guest.reports == [
                14, 5, 0x4000_0000,  // present, user
                14, 7, 0x4000_1000,  // present, write, user
                14, 21, 0x4000_2010,  // present, user, fetch
            ])
    }

    @Test func reservedBitsSayReserved() throws {
        // Bit 51 is an address bit that no CPU here has; bit 63 is reserved without NXE.
        let guest = try guest(
            [1 << 51 | 0x20_0007, 1 << 63 | 0x20_1007], efer: 0,
            """
            lea r15, [rip + 1f]
            mov eax, [0x40000000]
            1: lea r15, [rip + 2f]
            mov eax, [0x40001000]
            2:
            """)
        guest.run()
        #expect(guest.reports == [14, 9, 0x4000_0000, 14, 9, 0x4000_1000])
    }

    @Test func supervisorWritesReadOnlyPagesUnlessWPIsSet() throws {
        let guest = try guest(
            [0x20_0001],
            """
            mov dword ptr [0x40000000], 7
            mov rax, cr0
            or eax, 0x10000
            mov cr0, rax
            lea r15, [rip + 1f]
            mov dword ptr [0x40000000], 8
            1: mov eax, [0x40000000]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [14, 3, 0x4000_0000, 7])
    }

    @Test func accessedAndDirtyBitsAreSetWhenDue() throws {
        let guest = try guest(
            [0x20_0007, 0x20_1007, 0x20_2007],
            """
            mov eax, [0x40000000]
            mov eax, [0x104000]
            out 0xE9, eax
            mov [0x40000000], eax
            mov eax, [0x104000]
            out 0xE9, eax
            mov [0x40001000], eax
            mov eax, [0x104008]
            out 0xE9, eax
            mov eax, [0x104010]
            out 0xE9, eax
            """)
        guest.run()
        // A, then A and D; both at once for a write; the page that nobody touched has neither.
        #expect(guest.reports == [0x20_0027, 0x20_0067, 0x20_1067, 0x20_2007])
    }

    @Test func SMEPAndSMAP() throws {
        let guest = try guest(
            [0x20_0007],
            """
            mov rax, cr4
            or eax, 0x300000
            mov cr4, rax
            lea r15, [rip + 1f]
            mov eax, [0x40000000]
            1: stac
            mov eax, [0x40000000]
            clac
            lea r15, [rip + 2f]
            mov [0x40000000], eax
            2: lea r15, [rip + 3f]
            mov eax, 0x40000000
            jmp rax
            3: mov eax, 0x1234
            out 0xE9, eax
            """)
        // The program itself must be the supervisor's then: 2 MiB page 0 loses the user bit.
        guest[0x10_2000, as: UInt64.self] = 0x83
        guest.run()
        #expect(guest.reports == [14, 1, 0x4000_0000, 14, 3, 0x4000_0000, 14, 17, 0x4000_0000, 0x1234])
    }

    @Test func aWriteAcrossPagesIsAllOrNothing() throws {
        let guest = try guest(
            [0x20_0007, 0],
            """
            mov eax, 0x11111111
            mov [0x40000FFC], eax
            mov rax, 0x2222222222222222
            lea r15, [rip + 1f]
            mov [0x40000FFC], rax
            1: mov eax, [0x40000FFC]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [14, 2, 0x4000_1000, 0x1111_1111])
    }

    /// A translation may live on until INVLPG; after it, never.
    @Test func INVLPGDropsATranslation() throws {
        let guest = try guest(
            [0x20_0007, 0x20_1007],
            """
            mov dword ptr [0x200000], 0xA
            mov dword ptr [0x201000], 0xB
            mov eax, [0x40000000]
            out 0xE9, eax
            mov qword ptr [0x104000], 0x201007
            invlpg [0x40000000]
            mov eax, [0x40000000]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [0xA, 0xB])
    }

    /// Any address inside a large page names all of it.
    @Test func INVLPGDropsAWholeLargePage() throws {
        let guest = try guest(
            [],
            """
            mov qword ptr [0x103008], 0x200087
            mov dword ptr [0x200000], 0xA
            mov dword ptr [0x300000], 0xA2
            mov eax, [0x40200000]
            out 0xE9, eax
            mov eax, [0x40300000]
            out 0xE9, eax
            mov qword ptr [0x103008], 0x000087
            invlpg [0x40234567]
            mov eax, [0x40200500]
            out 0xE9, eax
            mov eax, [0x40300000]
            out 0xE9, eax
            """)
        guest[0x500, as: UInt32.self] = 0xC
        guest[0x10_0000, as: UInt64.self] = 0x10_1007
        guest.run()
        #expect(guest.reports.prefix(3) == [0xA, 0xA2, 0xC])
        // 0x40300000 is physical 0x100000 now: the first entry of the PML4, accessed.
        #expect(guest.reports.last == 0x10_1027)
    }

    @Test func globalPagesOutliveCR3() throws {
        let guest = try guest(
            [0x20_0107, 0x20_1007],
            """
            mov rax, cr4
            or eax, 0x80
            mov cr4, rax
            mov dword ptr [0x200000], 0xA
            mov dword ptr [0x201000], 0xB
            mov dword ptr [0x202000], 0xC
            mov eax, [0x40000000]
            mov eax, [0x40001000]
            mov qword ptr [0x104000], 0x202107
            mov qword ptr [0x104008], 0x202007
            mov rax, cr3
            mov cr3, rax
            mov eax, [0x40000000]
            out 0xE9, eax
            mov eax, [0x40001000]
            out 0xE9, eax
            mov rax, cr4
            xor eax, 0x80
            mov cr4, rax
            mov eax, [0x40000000]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [0xA, 0xC, 0xC])
    }

    /// With PCIDs a CR3 load with bit 63 keeps what the PCID had, one without drops it.
    @Test func PCIDsKeepAddressSpacesApart() throws {
        let guest = try guest(
            [0x20_0007],
            """
            mov rax, cr4
            or eax, 0x20000
            mov cr4, rax
            mov dword ptr [0x200000], 0xA
            mov dword ptr [0x201000], 0xB
            mov eax, 0x100001
            mov cr3, rax
            mov ebx, [0x40000000]
            mov qword ptr [0x104000], 0x201007
            mov eax, 0x100002
            mov cr3, rax
            mov eax, [0x40000000]
            out 0xE9, eax
            mov rax, 0x8000000000100001
            mov cr3, rax
            mov eax, [0x40000000]
            out 0xE9, eax
            mov eax, 0x100001
            mov cr3, rax
            mov eax, [0x40000000]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [0xB, 0xA, 0xB])
    }

    @Test func pagesPastRAMReadAsDevices() throws {
        let guest = try guest(
            [0x8000_0007, 1 << 40 | 7],
            """
            mov eax, [0x40000010]
            out 0xE9, eax
            mov dword ptr [0x40000020], 0x77
            mov eax, [0x40001000]
            out 0xE9, eax
            mov rax, 0x1122334455667788
            mov [0x40000FFC], rax
            """)
        guest.run()
        #expect(guest.reports == [0x8000_0010, 0xFFFF_FFFF])
        let stored = guest.ports.stored
        #expect(stored.map(\.address) == [0x8000_0020, 0x8000_0FFC, 1 << 40])
        #expect(stored.map(\.value) == [0x77, 0x5566_7788, 0x1122_3344])
    }

    /// Code where no RAM is: its bytes come from the device. Those of nothing at all are 0xFF, an opcode that nothing defines.
    @Test func codeFromDevices() throws {
        let guest = try guest(
            [1 << 40 | 7, 0x8000_0007],
            """
            lea r15, [rip + 1f]
            mov eax, 0x40000000
            jmp rax
            1: lea r15, [rip + 2f]
            mov eax, 0x400010C3
            call rax
            mov eax, 0x77
            out 0xE9, eax
            2:
            """)
        guest.run()
        // The device's byte at 0xC3 is 0xC3: RET.
        #expect(guest.reports == [6, 0, 0x77])
    }

    /// Fetches say so where NX or SMEP is on.
    @Test func fetchFromAbsentAndForbiddenPages() throws {
        let guest = try guest(
            [0, 1 << 63 | 0x20_2003],
            """
            lea r15, [rip + 1f]
            mov eax, 0x40000123
            jmp rax
            1: lea r15, [rip + 2f]
            mov eax, 0x40001456
            jmp rax
            2:
            """)
        guest.run()
        #expect(guest.reports == [14, 0x10, 0x4000_0123, 14, 0x11, 0x4000_1456])
    }

    /// Code that runs off the lower half's end, by itself and by a jump, meets #GP at the first address that is none.
    @Test(arguments: [
        "mov rax, 0x7FFFFFFFFFFE\njmp rax", "mov rax, 0x800000000000\njmp rax",
        "mov rax, 0x800000000000\npush rax\nret",
    ])
    func pastTheCanonicalEdge(_ jump: String) throws {
        let guest = try guest([], "lea r15, [rip + 1f]\n\(jump)\n1:")
        // The last page of the lower half: tables at 0x105000, 0x106000, 0x107000.
        guest[0x10_07F8, as: UInt64.self] = 0x10_5007
        guest[0x10_5FF8, as: UInt64.self] = 0x10_6007
        guest[0x10_6FF8, as: UInt64.self] = 0x10_7007
        guest[0x10_7FF8, as: UInt64.self] = 0x20_0007
        guest[0x20_0FFE, as: UInt16.self] = 0x9090
        guest.run()
        #expect(guest.reports == [13, 0])
    }

    /// Two pages of code take turns at one address, 20000 times, by INVLPG and by CR3: what runs is what is mapped, and code memory does not grow.
    @Test(arguments: ["invlpg [rdi]", "mov rax, cr3\nmov cr3, rax"])
    func codeRemappedOverAndOver(_ flush: String) throws {
        let guest = try guest(
            [0x20_0007],
            """
            mov dword ptr [0x200000], 0xC303C683
            mov dword ptr [0x201000], 0xC305C683
            mov edi, 0x40000000
            xor esi, esi
            mov ecx, 20000
            1: xor dword ptr [0x104000], 0x1000
            \(flush)
            call rdi
            dec ecx
            jnz 1b
            mov eax, esi
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [20000 * 4])
    }

    /// A table where no RAM is reads as all ones: reserved bits are set.
    @Test func pageTablesPastRAM() throws {
        let guest = try guest(
            [],
            """
            mov eax, 0x80000007
            mov [0x103000], rax
            lea r15, [rip + 1f]
            mov eax, [0x40000000]
            1:
            """)
        guest.run()
        #expect(guest.reports == [14, 9, 0x4000_0000])
    }

    /// 32-bit paging: a page of 4 MiB with an address above 4 GiB's bits clear, then a page table.
    @Test func legacyPaging() throws {
        let guest = try GuestProgram(
            """
            .code32
            mov dword ptr [0x10000], 0x83
            mov dword ptr [0x10004], 0x11003
            mov dword ptr [0x11000], 0x200003
            mov eax, cr4
            or eax, 0x10
            mov cr4, eax
            mov eax, 0x10000
            mov cr3, eax
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            mov dword ptr [0x400020], 0x1234
            mov eax, [0x200020]
            out 0xE9, eax
            mov eax, [0x10000]
            out 0xE9, eax
            mov eax, [0x10004]
            out 0xE9, eax
            mov eax, [0x11000]
            out 0xE9, eax
            hlt
            """, bits: 32)
        guest.run()
        #expect(guest.reports == [0x1234, 0xA3, 0x11023, 0x20_0063])
    }

    /// PAE paging reads its four top entries when CR3 is loaded, and refuses reserved bits in them then.
    @Test func PAEPaging() throws {
        let guest = try GuestProgram(
            """
            .code32
            mov dword ptr [0x10000], 0x11001
            mov dword ptr [0x11000], 0x83
            mov dword ptr [0x11008], 0x83
            mov eax, 0x10000
            mov cr3, eax
            mov eax, cr4
            or eax, 0x20
            mov cr4, eax
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            mov dword ptr [0x200500], 0x1234
            mov eax, [0x500]
            out 0xE9, eax
            # A changed entry counts only from the next load of CR3 on.
            mov dword ptr [0x10000], 0
            mov eax, [0x600]
            mov eax, 0x4321
            out 0xE9, eax
            hlt
            """, bits: 32)
        guest.run()
        #expect(guest.reports == [0x1234, 0x4321])
    }
}
