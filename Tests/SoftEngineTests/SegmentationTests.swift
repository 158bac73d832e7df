import MachineModel
import Testing
import X86

@testable import SoftEngine

/// 32-bit protected mode: limits, gates, tasks, v8086.
///
/// The descriptor table is at 0x500: 8 code, 0x10 data, 0x18 user code, 0x20 user data; from 0x28 on it is each test's.
@Suite struct SegmentationTests {
    /// A program with a 32-bit interrupt table at 0x9000 whose handlers report vector and error code and go on at ESI, a TSS at 0xA000
    /// (selector 0x28, SS0:ESP0 0x10:0x7000), and vector 0x30 to end it from any level. The I/O bitmap is empty.
    private func guest(_ body: String) throws -> GuestProgram {
        let withCode: Set<Int> = [8, 10, 11, 12, 13, 14, 17]
        let stubs = (0..<32).map { vector in
            ".balign 16\n" + (withCode.contains(vector) ? "" : "push 0\n") + "push \(vector)\njmp report"
        }
        return try GuestProgram(
            """
            .code32
            mov eax, offset stubs
            mov edi, 0x9000
            mov ecx, 32
            fill:
            mov [edi], ax
            mov dword ptr [edi + 2], 8
            mov byte ptr [edi + 5], 0x8E
            mov word ptr [edi + 6], 0
            add eax, 16
            add edi, 8
            loop fill
            mov eax, offset finish
            mov [0x9180], ax
            mov dword ptr [0x9182], 8
            mov word ptr [0x9185], 0xEE
            lidt [interrupt_table]
            mov dword ptr [0xA004], 0x7000
            mov dword ptr [0xA008], 0x10
            mov word ptr [0xA066], 0x68
            mov dword ptr [0x528], 0xA0000067
            mov dword ptr [0x52C], 0x8900
            mov ax, 0x28
            ltr ax
            jmp body
            .balign 16
            stubs: \(stubs.joined(separator: "\n"))
            .balign 16
            finish: cli
            hlt
            report:
            push eax
            mov eax, [esp + 4]
            out 0xE9, eax
            mov eax, [esp + 8]
            out 0xE9, eax
            pop eax
            add esp, 8
            mov [esp], esi
            iret
            interrupt_table: .word 0x7FF
            .long 0x9000
            body:
            \(body)
            cli
            hlt
            """, bits: 32)
    }

    @Test func segmentLimits() throws {
        let guest = try guest(
            """
            # 0x30: 0x1000 bytes at 0; 0x38: expand-down above 0x1000; 0x40: read-only; 0x48: execute-only; 0x50: absent.
            mov dword ptr [0x530], 0x00000FFF
            mov dword ptr [0x534], 0x00409300
            mov dword ptr [0x538], 0x00000FFF
            mov dword ptr [0x53C], 0x00409700
            mov dword ptr [0x540], 0x0000FFFF
            mov dword ptr [0x544], 0x00CF9100
            mov dword ptr [0x548], 0x0000FFFF
            mov dword ptr [0x54C], 0x00CF9900
            mov dword ptr [0x550], 0x0000FFFF
            mov dword ptr [0x554], 0x00CF1300
            mov ax, 0x30
            mov es, ax
            mov eax, es:[0xFFC]
            mov esi, offset 1f
            mov eax, es:[0xFFD]
            1: mov ax, 0x38
            mov es, ax
            mov eax, es:[0x1000]
            mov esi, offset 2f
            mov eax, es:[0xFFF]
            2: mov ax, 0x40
            mov es, ax
            mov eax, es:[0]
            mov esi, offset 3f
            mov es:[0], eax
            3: mov esi, offset 4f
            mov ax, 0x48
            mov es, ax
            4: mov esi, offset 5f
            mov ax, 0x50
            mov es, ax
            5: mov esi, offset 6f
            mov ss, ax
            6: xor eax, eax
            mov es, ax
            mov esi, offset 7f
            mov eax, es:[0]
            7: mov esi, offset 8f
            mov ss, ax
            8:
            """)
        guest.run()
        #expect(
            guest.reports == [13, 0, 13, 0, 13, 0, 13, 0x48, 11, 0x50, 12, 0x50, 13, 0, 13, 0])
        // Loads have set the accessed bits.
        #expect(guest[0x535, as: UInt8.self] & 1 == 1)
    }

    /// A call gate to level 0 with two parameters, and the return that drops them.
    @Test func callGate() throws {
        let guest = try guest(
            """
            mov eax, offset gate_entry
            mov [0x530], ax
            mov word ptr [0x532], 8
            mov dword ptr [0x534], 0x0000EC02
            push 0x23
            push 0x6000
            push 0x1B
            push offset user
            retf
            user:
            push 0x111
            push 0x222
            .byte 0x9A
            .long 0
            .word 0x33
            mov ebx, esp
            mov di, cs
            int 0x30
            gate_entry:
            mov eax, [esp + 8]
            out 0xE9, eax
            mov eax, [esp + 12]
            out 0xE9, eax
            mov eax, [esp + 16]
            out 0xE9, eax
            mov eax, esp
            out 0xE9, eax
            mov ax, cs
            movzx eax, ax
            out 0xE9, eax
            retf 8
            """)
        guest.run()
        #expect(guest.reports == [0x222, 0x111, 0x5FF8, 0x7000 - 24, 8])
        #expect(guest.state.generalRegisters[GeneralRegister.RBX] == 0x6000)
        #expect(guest.state.generalRegisters[GeneralRegister.RDI] & 0xFFFF == 0x1B)
    }

    /// User I/O: refused by an empty bitmap, let through by a clear bit.
    @Test func portBitmap() throws {
        let guest = try guest(
            """
            mov dword ptr [0x528], 0xA0001FFF
            mov byte ptr [0xA068 + 0x1D], 0
            mov byte ptr [0xA068 + 0x10], 0xFE
            mov dword ptr [0x52C], 0x8900
            mov ax, 0x28
            ltr ax
            push 0x23
            push 0x6000
            push 0x1B
            push offset user
            retf
            user:
            mov eax, 0x77
            out 0xE9, al
            in al, 0x80
            mov esi, offset 1f
            in ax, 0x80
            1: int 0x30
            """)
        guest.run()
        #expect(guest.reports == [0x77, 13, 0])
    }

    /// A task switch by CALL, and IRET back through the link; the busy bits follow.
    @Test func taskSwitch() throws {
        let guest = try guest(
            """
            mov dword ptr [0x530], 0xB0000067
            mov dword ptr [0x534], 0x8900
            mov dword ptr [0xB020], offset task
            mov dword ptr [0xB024], 2
            mov dword ptr [0xB028], 0xAAAA
            mov dword ptr [0xB038], 0x6800
            mov dword ptr [0xB048], 0x10
            mov dword ptr [0xB04C], 8
            mov dword ptr [0xB050], 0x10
            mov dword ptr [0xB054], 0x10
            mov ebx, 0x5555
            .byte 0x9A
            .long 0
            .word 0x30
            mov eax, ebx
            out 0xE9, eax
            mov eax, [0x52C]
            out 0xE9, eax
            mov eax, [0x534]
            out 0xE9, eax
            jmp 9f
            task:
            out 0xE9, eax
            mov eax, [0xB000]
            out 0xE9, eax
            pushf
            pop eax
            out 0xE9, eax
            mov eax, cr0
            and eax, 8
            out 0xE9, eax
            mov eax, [0x52C]
            out 0xE9, eax
            iret
            9:
            """)
        guest.run()
        #expect(
            guest.reports == [
                0xAAAA, 0x28, 0x4002, 8, 0x8B00,  // its EAX, link, NT, TS; the caller stays busy
                0x5555, 0x8B00, 0x8900,  // and back
            ])
    }

    /// IRET to v8086 mode, a privileged instruction there, and an interrupt that comes back with the segments on the stack.
    @Test func virtual8086() throws {
        let guest = try guest(
            """
            push 0x333
            push 0x222
            push 0x711
            push 0x444
            push 0x600
            push 0x1000
            push 0x20002
            # CS 0x100 begins at 0x1000.
            push 0x100
            mov eax, offset v86
            sub eax, 0x1000
            push eax
            mov eax, offset handler
            mov [0x9068], ax
            iret
            .code16
            v86:
            mov ax, ds
            mov bx, 0x1234
            mov [0x10], bx
            hlt
            .code32
            handler:
            mov ebx, [esp + 12]
            mov eax, [esp]
            out 0xE9, eax
            mov eax, ebx
            out 0xE9, eax
            mov eax, [esp + 24]
            out 0xE9, eax
            mov eax, [esp + 28]
            out 0xE9, eax
            mov eax, esp
            out 0xE9, eax
            mov ax, ds
            movzx eax, ax
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports.count == 6)
        #expect(guest.reports[0] == 0)
        // EFLAGS has VM and RF; then ES and DS; ten words on the stack; DS is null.
        #expect(UInt64(guest.reports[1]) & RFLAGS.VM != 0)
        #expect(Array(guest.reports.dropFirst(2)) == [0x444, 0x711, 0x7000 - 40, 0])
        #expect(guest[0x7120, as: UInt16.self] == 0x1234)
    }

    @Test func inspectionInstructions() throws {
        let guest = try guest(
            """
            mov eax, 0x18
            lar ebx, eax
            mov eax, ebx
            out 0xE9, eax
            mov eax, 0x10
            lsl ebx, eax
            mov eax, ebx
            out 0xE9, eax
            mov eax, 0x10
            verw ax
            setz al
            movzx eax, al
            out 0xE9, eax
            mov eax, 8
            verw ax
            setz al
            movzx eax, al
            out 0xE9, eax
            mov eax, 0x1000
            lar ebx, eax
            setz al
            movzx eax, al
            out 0xE9, eax
            mov eax, 0x10
            mov ecx, 3
            arpl ax, cx
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [0xCFFB00, 0xFFFF_FFFF, 1, 0, 0, 0x13])
    }

    /// A 16-bit stack wraps at 64 KiB and leaves the upper half of ESP alone.
    @Test func sixteenBitStack() throws {
        let guest = try guest(
            """
            mov dword ptr [0x530], 0x0000FFFF
            mov dword ptr [0x534], 0x00009300
            mov ax, 0x30
            mov ss, ax
            mov esp, 0xABCD0000
            push 0x12345678
            mov eax, esp
            out 0xE9, eax
            pop eax
            out 0xE9, eax
            mov eax, esp
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [0xABCD_FFFC, 0x1234_5678, 0xABCD_0000])
    }
}
