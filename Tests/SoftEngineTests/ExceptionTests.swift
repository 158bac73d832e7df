import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Delivery of exceptions and interrupts in long mode: frames, error codes, stacks, double faults, IRET, traps.
@Suite struct ExceptionTests {
    private func guest(_ body: String) throws -> GuestProgram {
        try GuestProgram(GuestProgram.withHandlers(body + "\ncli\nhlt"), bits: 64)
    }

    /// Vector and error code of the fault that each snippet raises at privilege level 0.
    @Test(
        arguments: [
            ("ud2", [6, 0]),
            ("xor edx, edx; xor ecx, ecx; div ecx", [0, 0]),
            ("int3", [3, 0]),
            ("mov ax, 0x77; mov ds, ax", [13, 0x74]),
            ("mov ax, 0x1B; mov ss, ax", [13, 0x18]),
            ("int 0x40", [13, 0x40 * 8 + 2]),
            ("mov rax, 0x800000000000; mov eax, [rax]", [13, 0]),
            ("mov rbp, 0x800000000000; mov eax, [rbp]", [12, 0]),
            ("mov ecx, 0x12345; rdmsr", [13, 0]),
            ("mov rax, 0x100000000; mov cr0, rax", [13, 0]),
            ("mov rax, cr4; and eax, ~0x20; mov cr4, rax", [13, 0]),
            ("mov rax, cr0; and eax, ~1; mov cr0, rax", [13, 0]),
            ("mov rax, cr0; and eax, 0x7FFFFFFF; mov cr0, rax", [13, 0]),
            ("mov rax, cr0; or eax, 0x20000000; mov cr0, rax", [13, 0]),
            ("mov rax, cr4; or eax, 1 << 12; mov cr4, rax", [13, 0]),
            ("mov eax, 8; mov dr7, rax; mov rax, 1 << 32; mov dr7, rax", [13, 0]),
            ("mov ecx, 0xC0000080; rdmsr; xor eax, 0x100; wrmsr", [13, 0]),
            ("mov ecx, 0xC0000080; rdmsr; or eax, 0x1000; wrmsr", [13, 0]),
            ("mov ecx, 0xC0000100; xor eax, eax; mov edx, 0x8000; wrmsr", [13, 0]),
            ("mov ecx, 0x277; mov eax, 2; xor edx, edx; wrmsr", [13, 0]),
            ("mov ecx, 0x4B564D03; mov eax, 3; xor edx, edx; wrmsr", [13, 0]),
            ("mov ecx, 0x4B564D03; mov eax, 0xFFFFFFC1; mov edx, -1; wrmsr", [13, 0]),
            ("xor ecx, ecx; rdpmc", [13, 0]),
            ("xor eax, eax; lldt ax; mov ax, 0x10; lldt ax", [13, 0x10]),
            ("mov ax, 0x10; ltr ax", [13, 0x10]),
            ("xor eax, eax; ltr ax", [13, 0]),
            ("monitor", [6, 0]),
            ("push 0x18; push 0; lretq", [13, 0]),
        ] as [(String, [UInt32])])
    func faults(_ code: String, _ expected: [UInt32]) throws {
        let guest = try guest(
            """
            mov r14, rsp
            lea r15, [rip + 9f]
            \(code.replacing("; ", with: "\n"))
            9: mov rsp, r14
            """)
        guest.run()
        // LRETQ to level 0 with a selector of level 3's DPL is refused by the check of DPL against RPL.
        #expect(guest.reports == (code.hasSuffix("lretq") ? [13, 0x18] : expected), "\(code)")
    }

    /// What privileged instructions raise at level 3.
    @Test(
        arguments: [
            ("hlt", [13, 0]), ("cli", [13, 0]), ("in al, 0x80", [13, 0]), ("mov rax, cr0", [13, 0]),
            ("mov rax, dr7", [13, 0]), ("wrmsr", [13, 0]), ("invlpg [rax]", [13, 0]), ("swapgs", [13, 0]),
            ("clts", [13, 0]), ("wbinvd", [13, 0]), ("lgdt [rip]", [13, 0]), ("stac", [6, 0]), ("sysretq", [6, 0]),
            ("int 0x20", [13, 0x102]), ("int3", [13, 0x1A]), ("lmsw ax", [13, 0]),
            ("mov ax, 0x10; mov ds, ax", [13, 0x10]), ("xsetbv", [6, 0]), ("iretq", [13, 0]),
        ] as [(String, [UInt32])])
    func userFaults(_ code: String, _ expected: [UInt32]) throws {
        let guest = try guest(
            """
            push 0x23
            push 0x5000
            push 2
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            1:
            lea rax, [rip + 1b]
            lea r15, [rip + 9f]
            mov ecx, 0x10
            push 0
            push 0
            push 0
            \(code.replacing("; ", with: "\n"))
            9: int 0x30
            """)
        guest.run()
        #expect(guest.reports == expected, "\(code)")
    }

    @Test func UMIPHidesTables() throws {
        let body = """
            push 0x23
            push 0x5000
            push 2
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            1: lea r15, [rip + 2f]
            sgdt [0x4000]
            2: lea r15, [rip + 3f]
            smsw eax
            3: lea r15, [rip + 4f]
            str eax
            4: int 0x30
            """
        let open = try guest(body)
        open.run()
        #expect(open.reports == [])
        let hidden = try guest("mov rax, cr4\nor eax, 0x800\nmov cr4, rax\n" + body)
        hidden.run()
        #expect(hidden.reports == [13, 0, 13, 0, 13, 0])
    }

    /// The frame: aligned, SS RSP RFLAGS CS RIP, with RF set for a fault.
    @Test func frameOfAFault() throws {
        let guest = try guest(
            """
            lea rax, [rip + handler]
            mov word ptr [0x9060], ax
            mov rsp, 0x7F03
            here: ud2
            handler:
            mov eax, esp
            out 0xE9, eax
            lea rax, [rip + here]
            sub rax, [rsp]
            out 0xE9, eax
            mov eax, [rsp + 8]
            out 0xE9, eax
            mov eax, [rsp + 16]
            out 0xE9, eax
            mov eax, [rsp + 24]
            out 0xE9, eax
            mov eax, [rsp + 32]
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports.count == 6)
        #expect(guest.reports[0] == 0x7F00 - 40)
        #expect(guest.reports[1] == 0)
        #expect(guest.reports[2] == 8)
        #expect(UInt64(guest.reports[3]) & RFLAGS.RF != 0)
        #expect(guest.reports[4...] == [0x7F03, 0x10])
    }

    /// An interrupt from user mode takes RSP0 and a null SS; one with an IST entry that stack.
    @Test func stacksOfTheTaskState() throws {
        let guest = try guest(
            """
            mov byte ptr [0x9064], 1
            lea rax, [rip + handler]
            mov word ptr [0x9060], ax
            mov word ptr [0x9030], ax
            mov byte ptr [0x9035], 0xEE
            push 0x23
            push 0x5000
            push 2
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            1: int3
            ud2
            handler:
            mov eax, esp
            out 0xE9, eax
            mov ax, ss
            movzx eax, ax
            out 0xE9, eax
            inc ebx
            cmp ebx, 2
            je 2f
            iretq
            2:
            """)
        guest.run()
        #expect(guest.reports == [0x7000 - 40, 0, 0x6000 - 40, 0])
    }

    /// A contributory fault while a #GP is delivered: #DF with error code 0, on a stack of its own.
    @Test func doubleFault() throws {
        let guest = try guest(
            """
            mov byte ptr [0x90D5], 0
            mov byte ptr [0x9084], 1
            lea r15, [rip + 1f]
            mov rsp, 0x7F00
            hlt_at_0: int 0x50
            1:
            """)
        guest.run()
        #expect(guest.reports == [8, 0])
    }

    /// A page fault while a page fault is delivered, with nowhere to put the double fault: shutdown.
    @Test func tripleFault() throws {
        let guest = try guest(
            """
            mov rsp, 0x7FFFFF000000
            mov eax, [0x7FFFFFFF]
            """)
        guard case .tripleFault(let report) = guest.run() else {
            Issue.record("no triple fault")
            return
        }
        #expect(report.contains("CR2="))
    }

    /// TF traps after each instruction, with DR6.BS; the instruction after MOV SS is not interrupted.
    @Test func singleStep() throws {
        let guest = try guest(
            """
            lea rax, [rip + handler]
            mov word ptr [0x9010], ax
            mov ebx, 0x10
            lea r14, [rip + start]
            pushf
            or dword ptr [rsp], 0x100
            popf
            start: nop
            mov ss, ebx
            nop
            pushf
            and dword ptr [rsp], ~0x100
            popf
            nop
            mov eax, 0xEEEE
            out 0xE9, eax
            cli
            hlt
            handler:
            push rax
            mov rax, [rsp + 8]
            sub rax, r14
            out 0xE9, eax
            mov rax, dr6
            out 0xE9, eax
            xor eax, eax
            mov dr6, rax
            pop rax
            iretq
            """)
        guest.run()
        let offsets = stride(from: 0, to: guest.reports.count - 1, by: 2).map { guest.reports[$0] }
        // After NOP; MOV SS (2 bytes) and the NOP under its shadow; PUSHF; AND (7 bytes); POPF, which ends it.
        #expect(offsets == [1, 4, 5, 12, 13])
        #expect(guest.reports.last == 0xEEEE)
        #expect(guest.reports[1] == 0xFFFF_4FF0)
    }

    /// Breakpoints on an instruction (a fault, passed by RF) and on data (a trap).
    @Test func hardwareBreakpoints() throws {
        let guest = try guest(
            """
            lea rax, [rip + handler]
            mov word ptr [0x9010], ax
            lea rax, [rip + target]
            mov dr0, rax
            mov eax, 0x4004
            mov dr1, rax
            mov eax, 0xD0000A
            or eax, 2
            mov dr7, rax
            target: mov dword ptr [0x4000], 1
            mov dword ptr [0x4006], 2
            mov ebx, [0x4004]
            mov eax, 0xEEEE
            out 0xE9, eax
            cli
            hlt
            handler:
            push rax
            mov rax, [rsp + 8]
            sub rax, offset target
            out 0xE9, eax
            mov rax, dr6
            and eax, 0xE00F
            out 0xE9, eax
            or dword ptr [rsp + 24], 0x10000
            pop rax
            iretq
            """)
        guest.run()
        // DR0 executes; DR1 watches writes of 4 bytes at 0x4004: the second MOV (11 bytes on) ends 11 bytes later; the load does not count.
        #expect(guest.reports == [0, 1, 22, 2, 0xEEEE])
    }

    @Test func generalDetect() throws {
        let guest = try guest(
            """
            mov eax, 0x2400
            mov dr7, rax
            lea r15, [rip + 1f]
            mov rax, dr3
            1: mov rax, dr6
            and eax, 0xE00F
            out 0xE9, eax
            mov rax, dr7
            out 0xE9, eax
            """)
        guest.run()
        // #DB with BD set; entering the handler has cleared GD.
        #expect(guest.reports == [1, 0, 0x2000, 0x400])
    }

    @Test func alignmentCheckInUserMode() throws {
        let guest = try guest(
            """
            mov rax, cr0
            or eax, 0x40000
            mov cr0, rax
            mov eax, [0x4001]
            push 0x23
            push 0x5000
            push 0x40002
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            1: mov eax, [0x4004]
            lea r15, [rip + 2f]
            mov eax, [0x4001]
            2: lea r15, [rip + 3f]
            mov [0x4002], eax
            3: mov [0x4003], al
            int 0x30
            """)
        guest.run()
        #expect(guest.reports == [17, 0, 17, 0])
    }

    /// IRETQ to compatibility mode, which has 32-bit code and segment limits, and back by a far jump is not allowed to level 3.
    @Test func compatibilityMode() throws {
        let guest = try guest(
            """
            mov rax, 0x00CFFB000000FFFF
            mov [0x518], rax
            push 0x23
            push 0x5000
            push 2
            push 0x1B
            lea rax, [rip + 1f]
            push rax
            iretq
            .code32
            1: mov eax, 0x12345678
            inc eax
            push eax
            mov ebx, [esp]
            mov ecx, esp
            int 0x30
            """)
        guest.run()
        #expect(guest.state.generalRegisters[GeneralRegister.RBX] == 0x1234_5679)
        #expect(guest.state.generalRegisters[GeneralRegister.RCX] == 0x4FFC)
    }

    /// SYSCALL and SYSRET with STAR, LSTAR and SFMASK.
    @Test func fastSystemCalls() throws {
        let guest = try guest(
            """
            mov ecx, 0xC0000080
            rdmsr
            or eax, 1
            wrmsr
            mov ecx, 0xC0000081
            xor eax, eax
            mov edx, 0x00130008
            wrmsr
            mov ecx, 0xC0000082
            lea rax, [rip + entry]
            xor edx, edx
            wrmsr
            mov ecx, 0xC0000084
            mov eax, 0x400
            wrmsr
            mov rax, 0x00AFFB000000FFFF
            mov [0x520], rax
            mov rax, 0x00CFF3000000FFFF
            mov [0x518], rax
            push 0x1B
            push 0x5000
            push 0x403
            push 0x23
            lea rax, [rip + 1f]
            push rax
            iretq
            1: std
            syscall
            next: pushf
            pop rbx
            mov r12w, cs
            mov r13w, ss
            int 0x30
            entry:
            pushf
            pop rax
            mov r8, r11
            mov r9, rcx
            lea r10, [rip + next]
            sub r9, r10
            mov r14w, cs
            sysretq
            """)
        guest.run()
        let registers = guest.state.generalRegisters
        // In the kernel DF is masked; R11 has the user's flags, RCX the return address.
        #expect(registers[GeneralRegister.RAX] & RFLAGS.DF == 0)
        #expect(registers[8] & RFLAGS.DF != 0)
        #expect(registers[9] == 0)
        #expect(registers[GeneralRegister.RBX] & (RFLAGS.DF | RFLAGS.CF) == RFLAGS.DF | RFLAGS.CF)
        #expect(registers[12] & 0xFFFF == 0x23)
        #expect(registers[13] & 0xFFFF == 0x1B)
        #expect(registers[14] & 0xFFFF == 8)
    }

    /// SWAPGS and the FS and GS base instructions.
    @Test func segmentBases() throws {
        let guest = try guest(
            """
            mov rax, cr4
            or eax, 0x10000
            mov cr4, rax
            mov dword ptr [0x4010], 0xAB
            mov dword ptr [0x5010], 0xCD
            mov eax, 0x4000
            wrgsbase rax
            mov ecx, 0xC0000102
            mov eax, 0x5000
            xor edx, edx
            wrmsr
            mov eax, gs:[0x10]
            out 0xE9, eax
            swapgs
            mov eax, gs:[0x10]
            out 0xE9, eax
            rdgsbase rax
            out 0xE9, eax
            mov rax, 0x800000000000
            lea r15, [rip + 1f]
            wrfsbase rax
            1:
            """)
        guest.run()
        #expect(guest.reports == [0xAB, 0xCD, 0x5000, 13, 0])
    }
}
