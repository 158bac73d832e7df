import GuestMemory
import KVMEngine
import MachineModel
import Testing
import X86

/// One and the same guest program on every engine that this host has: what it reports, and the state it ends in.
@Suite(.serialized, .timeLimit(.minutes(5))) struct EngineConformanceTests {
    /// Runs the program on an engine and gives back the guest, which has stopped itself.
    private func run(
        _ engine: ComparedEngine, _ source: String, bits: Int = 16, vcpuCount: Int = 1
    ) throws -> ConformanceGuest {
        let guest = try ConformanceGuest(engine, source, bits: bits, vcpuCount: vcpuCount)
        #expect(try guest.run() == .stopped)
        return guest
    }

    // MARK: modes

    @Test(arguments: ComparedEngine.all) func realMode(engine: ComparedEngine) throws {
        let guest = try run(
            engine, "mov ax, 0x1234\nmov ds, ax\nmov byte ptr [2], 7\nmov al, [2]\n" + ConformanceGuest.end)
        let state = guest.state
        #expect(state.generalRegisters[GeneralRegister.RAX] == 0x1207)
        #expect(state.ds.selector == 0x1234 && state.ds.base == 0x12340)
        #expect(try guest.memory.read(UInt8.self, at: .init(0x12342)) == 7)
    }

    /// For longer than an engine leaves a processor alone.
    @Test(arguments: ComparedEngine.all) func realModeForLong(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            "mov ecx, 500000\n1: push cx\npop dx\naddr32 loop 1b\nmov eax, 0x77\nout 0xE9, eax\n"
                + ConformanceGuest.end)
        #expect(guest.reports == [0x77])
        #expect(guest.state.generalRegisters[GeneralRegister.RSP] == 0x8000)
        // Nothing but the last word was pushed.
        #expect(try guest.memory.read(UInt64.self, at: .init(0x7FF8)) == 1 << 48)
    }

    @Test(arguments: ComparedEngine.all) func realToProtectedToLongMode(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            """
            lgdt [table]
            mov eax, cr0
            or al, 1
            mov cr0, eax
            jmp 8:protected
            .code32
            protected:
            mov ax, 0x10
            mov ds, ax
            mov dword ptr [0x20000], 0x21003
            mov dword ptr [0x21000], 0x83
            mov eax, cr4
            or eax, 0x20
            mov cr4, eax
            mov eax, 0x20000
            mov cr3, eax
            mov ecx, 0xC0000080
            rdmsr
            or eax, 0x100
            wrmsr
            mov eax, cr0
            or eax, 0x80000000
            mov cr0, eax
            jmp 0x18:long
            .code64
            long:
            mov rbx, 0x123456789ABCDEF0
            \(ConformanceGuest.end)
            .balign 8
            table: .word 0x1F
            .long entries
            .balign 8
            entries: .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF
            """)
        let state = guest.state
        #expect(state.generalRegisters[GeneralRegister.RBX] == 0x1234_5678_9ABC_DEF0)
        #expect(state.efer & (EFER.LMA | EFER.LME) == EFER.LMA | EFER.LME)
        #expect(state.cs.selector == 0x18 && state.cr0 & CR0.PG != 0)
    }

    @Test(arguments: ComparedEngine.all) func protectedMode(engine: ComparedEngine) throws {
        let guest = try run(
            engine, ".code32\nmov eax, 0x80000001\nadd eax, eax\nsetc bl\npush eax\npop ecx\n" + ConformanceGuest.end,
            bits: 32)
        let state = guest.state
        #expect(state.generalRegisters[GeneralRegister.RCX] == 2)
        #expect(state.generalRegisters[GeneralRegister.RBX] & 0xFF == 1)
    }

    /// Stores of every kind, on a page's edge too, go to the bus; what is there is read and run.
    @Test(arguments: ComparedEngine.all, [true, false])
    func theBIOSIsReadOnly(engine: ComparedEngine, takesKernel: Bool) throws {
        let guest = try ConformanceGuest(
            engine,
            """
            .code64
            mov rax, -1
            mov rbx, 0xF0000
            mov byte ptr [rbx], 1
            mov [rbx + 0xFFF8], rax
            mov [rbx + 0x10], ax
            lock add dword ptr [rbx + 0x20], 5
            inc dword ptr [rbx + 0x24]
            xchg [rbx + 0x28], eax
            mov rax, -1
            lea rdi, [rbx + 0x100]
            mov ecx, 64
            rep stosb
            mov esi, 0x1000
            lea rdi, [rbx + 0x200]
            mov ecx, 8
            rep movsq
            pcmpeqd xmm0, xmm0
            movdqu [rbx + 0x300], xmm0
            mov [rbx - 4], rax
            mov edx, [rbx + 0x40]
            lea rcx, [rbx + 0x800]
            call rcx
            """ + "\n" + ConformanceGuest.end, bits: 64, takesKernel: takesKernel)
        // mov eax, 0x77; out 0xE9, eax; ret
        let code: [UInt8] = [0xB8, 0x77, 0, 0, 0, 0xE7, 0xE9, 0xC3]
        try guest.memory.write(bytes: code, at: .init(0xF_0800))
        try guest.memory.write(0xC0FFEE as UInt32, at: .init(0xF_0040))
        #expect(try guest.run() == .stopped)
        #expect(guest.reports == [0x77])
        #expect(guest.state.generalRegisters[GeneralRegister.RDX] == 0xC0FFEE)
        var rom = [UInt8](repeating: 0, count: GuestMemory.rom.count)
        rom.replaceSubrange(0x800..<0x800 + code.count, with: code)
        rom.replaceSubrange(0x40..<0x43, with: [0xEE, 0xFF, 0xC0])
        #expect(try guest.memory.readBytes(at: .init(GuestMemory.rom.lowerBound), count: rom.count) == rom)
        #expect(try guest.memory.read(UInt64.self, at: .init(0xE_FFFC)) == 0xFFFF_FFFF)
        #expect(guest.device.accesses.contains { $0.address == 0xF_0000 && $0.width == 1 && $0.value == 1 })
    }

    // MARK: paging and exceptions

    @Test(arguments: ComparedEngine.all) func exceptionsInKernelMode(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                lea r15, [rip + 1f]
                xor ecx, ecx
                div ecx
                1: lea r15, [rip + 1f]
                ud2
                1: lea r15, [rip + 1f]
                mov rax, [0x40000010]
                1: lea r15, [rip + 1f]
                mov byte ptr [0x40000020], 1
                1: lea r15, [rip + 1f]
                mov rax, 0x8000000000000000
                mov al, [rax]
                1: lea r15, [rip + 1f]
                mov ax, 0x1000
                mov ds, ax
                1: lea r15, [rip + 1f]
                int3
                1: lea r15, [rip + 1f]
                int 0x30
                1:
                """), bits: 64)
        #expect(
            guest.reports == [
                0, 0, 6, 0, 14, 0, 0x4000_0010, 14, 2, 0x4000_0020, 13, 0, 13, 0x1000, 3, 0, 0x30, 0,
            ])
    }

    /// The same from CPL 3, and a page that only the kernel may touch. The task state's permission map lets it write to ports.
    @Test(arguments: ComparedEngine.all) func exceptionsInUserMode(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov qword ptr [0x102010], 0x400083
                invlpg [0x400000]
                push 0x23
                push 0x6000
                push 0x202
                push 0x1B
                lea rax, [rip + user]
                push rax
                iretq
                user:
                lea r15, [rip + 1f]
                mov rax, [0x400010]
                1: lea r15, [rip + 1f]
                mov rax, [0x40000010]
                1: lea r15, [rip + 1f]
                hlt
                1: lea r15, [rip + 1f]
                ud2
                1: lea r15, [rip + 1f]
                xor ecx, ecx
                div ecx
                1: lea r15, [rip + 1f]
                int3
                1: lea r15, [rip + 1f]
                int 0x31
                1: lea r15, [rip + 1f]
                int 0x32
                1:
                """), bits: 64)
        #expect(
            guest.reports == [14, 5, 0x40_0010, 14, 4, 0x4000_0010, 13, 0, 6, 0, 0, 0, 3, 0, 0x31, 0, 0x32, 0])
    }

    /// What CPL 3 writes into the kernel's code, the kernel runs, whoever runs the one and the other. Data beside it is written as well.
    @Test(arguments: ComparedEngine.all) func userModeRewritesTheKernel(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                push 0x23
                push 0x6000
                push 0x202
                push 0x1B
                lea rax, [rip + user]
                push rax
                iretq
                user:
                lea rbx, [rip + stubs + 16 * 0x31 + 3]
                mov edx, 100
                again:
                mov [rbx], dl
                mov eax, edx
                shl eax, 12
                mov [rax + 0x180000], edx
                lea r15, [rip + 1f]
                int 0x31
                1: dec edx
                cmp edx, 14
                ja again
                """), bits: 64)
        #expect(guest.reports == (15...100).reversed().flatMap { [UInt32($0), 0] })
    }

    /// At CPL 3 with IOPL 3 CLI and STI do not fault, before and after a trap into the kernel.
    @Test(arguments: ComparedEngine.all) func inputOutputPrivilege(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                push 0x23
                push 0x6000
                push 0x3202
                push 0x1B
                lea rax, [rip + user]
                push rax
                iretq
                user:
                lea r15, [rip + 1f]
                cli
                int 0x31
                1: lea r15, [rip + 1f]
                sti
                int 0x32
                1: lea r15, [rip + 1f]
                pushfq
                pop rax
                and eax, 0x200
                out 0xE9, eax
                int 0x33
                1:
                """), bits: 64)
        #expect(guest.reports == [0x31, 0, 0x32, 0, 0x200, 0x33, 0])
    }

    /// SYSCALL and SYSRET, many times, with a page that is unmapped and mapped again between.
    ///
    /// Here the kernel's code is on a page that user mode may fetch from, which KVM without hardware cannot take (see
    /// `KVMVCPU+StandIn.swift`); Linux's system calls are tested by whole guests.
    @Test(arguments: KVMHost.isHardwareBacked ? ComparedEngine.all : [.soft]) func systemCalls(engine: ComparedEngine)
        throws
    {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov rax, 0x00CFF3000000FFFF
                mov [0x528], rax
                mov rax, 0x00AFFB000000FFFF
                mov [0x530], rax
                mov ecx, 0xC0000081
                xor eax, eax
                mov edx, 0x00180008
                wrmsr
                mov ecx, 0xC0000082
                lea rax, [rip + entry]
                xor edx, edx
                wrmsr
                mov ecx, 0xC0000084
                mov eax, 0x200
                wrmsr
                mov ecx, 0xC0000080
                rdmsr
                or eax, 1
                wrmsr
                xor ebx, ebx
                lea rcx, [rip + user]
                mov r11d, 2
                .byte 0x48, 0x0F, 0x07
                user:
                inc ebx
                mov eax, [0x200000]
                add esi, eax
                syscall
                cmp ebx, 100
                jne user
                mov edi, 1
                syscall
                entry:
                test edi, edi
                jnz done
                mov rax, [0x102008]
                xor rax, 0x200000
                mov [0x102008], rax
                invlpg [0x200000]
                inc ebp
                .byte 0x48, 0x0F, 0x07
                done:
                """
            ).replacing(
                "body:\n",
                with:
                    "body:\nmov dword ptr [0x200000], 3\nlea r15, [rip + done]\nxor esi, esi\nxor ebp, ebp\nxor edi, edi\n"
            ),
            bits: 64)
        #expect(guest.reports == [])
        let state = guest.state
        #expect(state.generalRegisters[GeneralRegister.RBX] == 100)
        #expect(state.generalRegisters[GeneralRegister.RBP] == 100)
        // The other page's first word is 0 at physical 0: every second time.
        #expect(state.generalRegisters[GeneralRegister.RSI] == 150)
    }

    // MARK: devices

    @Test(arguments: ComparedEngine.all) func portsOfEveryWidth(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            """
            .code64
            in al, 0x80
            out 0xE9, al
            in ax, 0x80
            out 0xE9, ax
            in eax, 0x80
            out 0xE9, eax
            mov dx, 0x1234
            in eax, dx
            out dx, ax
            \(ConformanceGuest.end)
            """, bits: 64)
        #expect(guest.reports == [0xC4, 0x33C4, 0x1122_33C4])
        #expect(guest.device.accesses.contains(.init(address: 0x1234, width: 2, value: 0x4578)))
    }

    @Test(arguments: ComparedEngine.all) func registersOfEveryWidth(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            """
            .code64
            mov ebx, 0xD0000000
            mov rax, [rbx + 8]
            mov r8, rax
            mov ecx, [rbx + 4]
            movzx edx, word ptr [rbx + 2]
            movzx esi, byte ptr [rbx + 1]
            mov rdi, 0x1122334455667788
            mov [rbx + 0x10], rdi
            mov [rbx + 0x18], edi
            mov [rbx + 0x1C], di
            mov [rbx + 0x1E], dil
            \(ConformanceGuest.end)
            """, bits: 64)
        let state = guest.state
        let base = ConformanceGuest.deviceAddress
        let pattern: UInt64 = 0x8877_6655_4433_2211
        #expect(state.generalRegisters[8] == pattern ^ (base + 8))
        #expect(state.generalRegisters[GeneralRegister.RCX] == (pattern ^ (base + 4)) & 0xFFFF_FFFF)
        #expect(state.generalRegisters[GeneralRegister.RDX] == (pattern ^ (base + 2)) & 0xFFFF)
        #expect(state.generalRegisters[GeneralRegister.RSI] == (pattern ^ (base + 1)) & 0xFF)
        #expect(
            guest.device.accesses.filter { $0.address >= base } == [
                .init(address: base + 0x10, width: 8, value: 0x1122_3344_5566_7788),
                .init(address: base + 0x18, width: 4, value: 0x5566_7788),
                .init(address: base + 0x1C, width: 2, value: 0x7788),
                .init(address: base + 0x1E, width: 1, value: 0x88),
            ])
    }

    @Test(arguments: ComparedEngine.all) func stringInputAndOutput(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            """
            .code64
            cld
            mov esi, offset text
            mov dx, 0xE9
            mov ecx, 5
            rep outsb
            mov esi, offset text
            mov ecx, 2
            rep outsw
            mov edi, 0x20000
            mov dx, 0x80
            mov ecx, 3
            rep insd
            \(ConformanceGuest.end)
            text: .ascii "Davit"
            """, bits: 64)
        #expect(guest.reports == Array("Davit".utf8).map(UInt32.init) + [0x6144, 0x6976])
        for i in 0..<UInt64(3) {
            #expect(try guest.memory.read(UInt32.self, at: .init(0x20000 + i * 4)) == 0x1122_33C4)
        }
        #expect(guest.state.generalRegisters[GeneralRegister.RDI] == 0x2000C)
    }

    // MARK: interrupts, timers, processors

    /// The local APIC's timer, one-shot, wakes HLT; then an interrupt that the processor sends to itself.
    @Test(arguments: ComparedEngine.all) func timerWakesAHaltedProcessor(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov ebx, 0xFEE00000
                mov dword ptr [rbx + 0xF0], 0x1FF
                mov dword ptr [rbx + 0x3E0], 0xB
                mov dword ptr [rbx + 0x320], 0x33
                mov dword ptr [rbx + 0x380], 1000000
                lea r15, [rip + 1f]
                sti
                hlt
                2: jmp 2b
                1: cli
                mov dword ptr [rbx + 0xB0], 0
                mov dword ptr [rbx + 0x310], 0
                mov dword ptr [rbx + 0x300], 0x40035
                lea r15, [rip + 1f]
                sti
                2: jmp 2b
                1: cli
                mov dword ptr [rbx + 0xB0], 0
                """), bits: 64)
        #expect(guest.reports == [0x33, 0, 0x35, 0])
    }

    /// The 8259's interrupts reach the processor as ExtINT: while it runs, when it lets them, and while it is halted.
    @Test(arguments: ComparedEngine.all) func externalInterrupts(engine: ComparedEngine) throws {
        func waiting(_ enable: String) -> String {
            """
            lea r15, [rip + 1f]
            \(enable)
            2: jmp 2b
            1: cli
            mov al, 0x04
            out 0xE2, al
            mov al, 0x20
            out 0x20, al
            """
        }
        let initialize8259 = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xEF)]
            .map { "mov al, \($0.1)\nout \($0.0), al" }.joined(separator: "\n")
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov ebx, 0xFEE00000
                mov dword ptr [rbx + 0xF0], 0x1FF
                mov dword ptr [rbx + 0x350], 0x700
                \(initialize8259)
                \(waiting("sti\nmov al, 0x84\nout 0xE2, al"))
                mov al, 0x84
                out 0xE2, al
                mov eax, 0x99
                out 0xE9, eax
                \(waiting("sti"))
                mov al, 0x84
                out 0xE3, al
                \(waiting("sti\nhlt"))
                """), bits: 64)
        #expect(guest.reports == [0x24, 0, 0x99, 0x24, 0, 0x24, 0])
    }

    /// A level-triggered pin of the I/O APIC interrupts again when the processor ends the interrupt and the line is still raised.
    @Test(arguments: ComparedEngine.all) func levelTriggeredInterrupts(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov ebx, 0xFEE00000
                mov dword ptr [rbx + 0xF0], 0x1FF
                mov edi, 0xFEC00000
                mov dword ptr [rdi], 0x39
                mov dword ptr [rdi + 0x10], 0
                mov dword ptr [rdi], 0x38
                mov dword ptr [rdi + 0x10], 0x8035
                mov al, 0x94
                out 0xE2, al
                lea r15, [rip + 1f]
                sti
                2: jmp 2b
                1: cli
                mov dword ptr [rbx + 0xB0], 0
                lea r15, [rip + 1f]
                sti
                2: jmp 2b
                1: cli
                mov eax, [rdi + 0x10]
                out 0xE9, eax
                mov al, 0x14
                out 0xE2, al
                mov dword ptr [rbx + 0xB0], 0
                mov eax, [rdi + 0x10]
                out 0xE9, eax
                """), bits: 64)
        // Remote IRR is up until the end of the interrupt.
        #expect(guest.reports == [0x35, 0, 0x35, 0, 0xC035, 0x8035])
    }

    /// INIT and SIPI start the second processor in real mode; it writes to memory, the first waits for that.
    @Test(arguments: ComparedEngine.all) func startsASecondProcessor(engine: ComparedEngine) throws {
        let guest = try run(
            engine,
            ConformanceGuest.withHandlers(
                """
                mov word ptr [0x3000], 0x06C7
                mov dword ptr [0x3002], 0xBEEF0400
                mov word ptr [0x3006], 0xEBF4
                mov byte ptr [0x3008], 0xFD
                mov ebx, 0xFEE00000
                mov dword ptr [rbx + 0xF0], 0x1FF
                mov dword ptr [rbx + 0x310], 0x01000000
                mov dword ptr [rbx + 0x300], 0x4500
                mov ecx, 1000000
                1: pause
                loop 1b
                mov dword ptr [rbx + 0x310], 0x01000000
                mov dword ptr [rbx + 0x300], 0x4603
                1: pause
                cmp word ptr [0x400], 0xBEEF
                jne 1b
                """), bits: 64, vcpuCount: 2)
        #expect(try guest.memory.read(UInt16.self, at: .init(0x400)) == 0xBEEF)
    }

    // MARK: state

    /// The program stops half-way; another engine goes on with RAM and state.
    @Test(
        arguments: ComparedEngine.all.flatMap { from in ComparedEngine.all.map { (from, $0) } })
    func stateMovesBetweenEngines(from: ComparedEngine, to: ComparedEngine) throws {
        let source = ConformanceGuest.withHandlers(
            """
            mov r8, 0x1111222233334444
            fninit
            fldpi
            movq xmm3, r8
            mov ecx, 0xC0000102
            mov eax, 0x55667788
            mov edx, 0x11
            wrmsr
            out 0xF4, al
            movq r9, xmm3
            fstp qword ptr [0x20000]
            mov ecx, 0xC0000102
            rdmsr
            out 0xE9, eax
            lea r15, [rip + 1f]
            ud2
            1:
            """)
        let first = try ConformanceGuest(from, source, bits: 64)
        #expect(try first.run() == .stopped)
        let half = first.state
        let second = try ConformanceGuest(to, source, bits: 64)
        for address in stride(from: UInt64(0), to: 4 << 20, by: 4096) {
            let page = try first.memory.readBytes(at: .init(address), count: 4096)
            try second.memory.write(bytes: page, at: .init(address))
        }
        try second.engine.vcpus[0].restore(half)
        #expect(try second.run() == .stopped)
        let state = second.state
        #expect(state.generalRegisters[9] == 0x1111_2222_3333_4444)
        #expect(try second.memory.read(Double.self, at: .init(0x20000)) == Double.pi)
        #expect(second.reports == [0x5566_7788, 6, 0])
    }

    @Test(arguments: ComparedEngine.all) func stateThatCannotBeIsRefused(engine: ComparedEngine) throws {
        let guest = try ConformanceGuest(engine, ConformanceGuest.end)
        let before = guest.state
        var state = before
        state.cr0 = CR0.PG | CR0.ET
        #expect(throws: InvalidVCPUState.self) { try guest.engine.vcpus[0].restore(state) }
        state = before
        state.generalRegisters = []
        #expect(throws: InvalidVCPUState.self) { try guest.engine.vcpus[0].restore(state) }
        state = before
        state.modelSpecificRegisters[0xDEAD] = 1
        #expect(throws: InvalidVCPUState.self) { try guest.engine.vcpus[0].restore(state) }
        #expect(guest.state.rip == before.rip && guest.state.cr0 == before.cr0)
    }
}
