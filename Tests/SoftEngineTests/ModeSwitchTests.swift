import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Programs that go from one mode to another, as boot code does.
@Suite struct ModeSwitchTests {
    @Test func realModeCodeRunsUntilItHalts() throws {
        let guest = try GuestProgram(
            """
            mov ax, 0x1234
            mov cx, 3
            again:
            add ax, 1
            loop again
            out 0xE9, ax
            hlt
            """)
        let exit = guest.run()
        guard case .haltedForever = exit else {
            Issue.record("ended with \(exit)")
            return
        }
        #expect(guest.reports == [0x1237])
    }

    /// The interrupt table at address 0, and IRET.
    @Test func realModeInterrupts() throws {
        let guest = try GuestProgram(
            """
            mov word ptr [0x21*4], offset handler
            mov word ptr [0x21*4+2], 0
            mov ax, 5
            sti
            int 0x21
            out 0xE9, ax
            pushf
            pop ax
            and ax, 0x200
            out 0xE9, ax
            cli
            hlt
            handler:
            pushf
            pop bx
            and bx, 0x200
            add ax, bx
            add ax, 2
            iret
            """)
        guest.run()
        // Interrupts are off in the handler and on again after it.
        #expect(guest.reports == [7, 0x200])
    }

    /// CR0.PE, a far jump to 32-bit code, PAE page tables, EFER.LME, CR0.PG, a far jump to 64-bit code.
    @Test func realToProtectedToLong() throws {
        let guest = try GuestProgram(
            """
            lgdt [pointer]
            mov eax, cr0
            or al, 1
            mov cr0, eax
            .byte 0x66, 0xEA
            .long protected
            .word 8
            .code32
            protected:
            mov ax, 0x18
            mov ds, ax
            mov es, ax
            mov ss, ax
            mov dword ptr [0x10000], 0x11007
            mov dword ptr [0x11000], 0x12007
            mov dword ptr [0x12000], 0x87
            mov eax, cr4
            or eax, 0x20
            mov cr4, eax
            mov eax, 0x10000
            mov cr3, eax
            mov ecx, 0xC0000080
            rdmsr
            or eax, 0x100
            wrmsr
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            rdmsr
            out 0xE9, eax
            .byte 0xEA
            .long long_mode
            .word 0x10
            .code64
            long_mode:
            mov rax, 0x123456789ABCDEF0
            shr rax, 32
            out 0xE9, eax
            hlt
            .align 8
            table: .quad 0, 0x00CF9B000000FFFF, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
            pointer: .word 31
            .long table
            """)
        guest.run()
        #expect(guest.reports == [0x500, 0x1234_5678])
        // The tables' accessed bits were set, the page's dirty bit was not.
        #expect(guest[0x10000, as: UInt64.self] & 0x20 != 0)
        #expect(guest[0x12000, as: UInt64.self] & 0x60 == 0x20)
    }

    @Test func tripleFaultIsReportedWithRegistersAndCode() throws {
        let guest = try GuestProgram(
            """
            .code64
            lidt [rip + empty]
            mov eax, 0xCAFE
            ud2
            empty: .word 0
            .quad 0
            """, bits: 64)
        guard case .tripleFault(let report) = guest.run() else {
            Issue.record("no triple fault")
            return
        }
        #expect(report.contains("RAX=000000000000cafe"))
        #expect(report.contains("code 0f 0b"))
    }
}
