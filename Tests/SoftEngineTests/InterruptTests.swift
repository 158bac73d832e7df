import Foundation
import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Interrupts through the local APIC: timers, shadows, inter-processor interrupts, NMI, the sleep in HLT.
@Suite struct InterruptTests {
    /// With the APIC enabled at 0xFEE00000 (RBP) and vector 0x40's handler at `tick`.
    private func guest(_ body: String, vcpuCount: Int = 1) throws -> GuestProgram {
        let guest = try GuestProgram(
            GuestProgram.withHandlers(
                """
                lea rax, [rip + tick]
                mov word ptr [0x9400], ax
                mov dword ptr [0x9402], 8
                mov byte ptr [0x9405], 0x8E
                mov word ptr [0x9406], 0
                mov qword ptr [0x9408], 0
                mov ebp, 0xFEE00000
                mov dword ptr [rbp + 0xF0], 0x1FF
                \(body)
                cli
                hlt
                """), bits: 64, vcpuCount: vcpuCount)
        guest[0x10_1018, as: UInt64.self] = 0x10_5007
        guest[0x10_5FB8, as: UInt64.self] = 0xFEE0_0087
        return guest
    }

    @Test func timerEndsHLT() throws {
        let guest = try guest(
            """
            mov dword ptr [rbp + 0x320], 0x40
            mov dword ptr [rbp + 0x3E0], 0xB
            mov dword ptr [rbp + 0x380], 1000000
            sti
            hlt
            mov eax, 2
            out 0xE9, eax
            jmp 9f
            tick: mov eax, 1
            out 0xE9, eax
            mov dword ptr [rbp + 0xB0], 0
            iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [1, 2])
    }

    /// STI lets one more instruction through; CLI right after it keeps the interrupt out.
    @Test func shadowOfSTI() throws {
        let guest = try guest(
            """
            mov dword ptr [rbp + 0x310], 0
            mov dword ptr [rbp + 0x300], 0x40040
            sti
            cli
            mov eax, 1
            out 0xE9, eax
            sti
            nop
            here: mov eax, 2
            out 0xE9, eax
            jmp 9f
            tick: mov rax, [rsp]
            lea rbx, [rip + here]
            sub rax, rbx
            out 0xE9, eax
            mov dword ptr [rbp + 0xB0], 0
            iretq
            9:
            """)
        guest.run()
        // CLI was the instruction in the shadow. The second time it is NOP, and the interrupt comes before `here`.
        #expect(guest.reports == [1, 0, 2])
    }

    /// A higher task priority keeps the interrupt out until it is lowered through CR8.
    @Test func taskPriority() throws {
        let guest = try guest(
            """
            mov eax, 5
            mov cr8, rax
            mov dword ptr [rbp + 0x300], 0x40040
            sti
            nop
            nop
            mov eax, 1
            out 0xE9, eax
            xor eax, eax
            mov cr8, rax
            mov eax, 3
            out 0xE9, eax
            jmp 9f
            tick: mov eax, 2
            out 0xE9, eax
            mov dword ptr [rbp + 0xB0], 0
            iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [1, 2, 3])
    }

    /// Paravirtual EOI: the handler finds the word set, clears it, and has ended the interrupt.
    @Test func endOfInterruptByAWordInMemory() throws {
        let guest = try guest(
            """
            mov ecx, 0x4B564D04
            mov eax, 0x5001
            xor edx, edx
            wrmsr
            mov dword ptr [rbp + 0x300], 0x40040
            sti
            nop
            mov dword ptr [rbp + 0x300], 0x40040
            nop
            mov eax, [rbp + 0x120]
            out 0xE9, eax
            jmp 9f
            tick: mov eax, [0x5000]
            out 0xE9, eax
            mov dword ptr [0x5000], 0
            iretq
            9:
            """)
        guest.run()
        // Twice, and nothing is left in service.
        #expect(guest.reports == [1, 1, 0])
    }

    /// KVM_HC_KICK_CPU ends the next HLT, interrupts off or not.
    @Test func kickEndsHLT() throws {
        let guest = try guest(
            """
            mov eax, 5
            xor ebx, ebx
            xor ecx, ecx
            vmcall
            out 0xE9, eax
            cli
            hlt
            mov eax, 7
            out 0xE9, eax
            jmp 9f
            tick: iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [0, 7])
    }

    /// The TSC deadline through x2APIC's MSRs.
    @Test func deadlineInX2APICMode() throws {
        let guest = try guest(
            """
            mov ecx, 0x1B
            rdmsr
            or eax, 0x400
            wrmsr
            mov ecx, 0x832
            mov eax, 0x40040
            xor edx, edx
            wrmsr
            rdtsc
            add eax, 1000000
            adc edx, 0
            mov ecx, 0x6E0
            wrmsr
            sti
            hlt
            mov ecx, 0x6E0
            rdmsr
            out 0xE9, eax
            jmp 9f
            tick: mov eax, 1
            out 0xE9, eax
            mov ecx, 0x80B
            xor eax, eax
            xor edx, edx
            wrmsr
            iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [1, 0])
    }

    /// An NMI to oneself: not held off by IF, and no second one until IRET.
    @Test func nonMaskableInterrupts() throws {
        let guest = try guest(
            """
            lea rax, [rip + nmi]
            mov word ptr [0x9020], ax
            mov dword ptr [rbp + 0x310], 0
            mov dword ptr [rbp + 0x300], 0x400
            nop
            nop
            mov eax, 0xEE
            out 0xE9, eax
            jmp 9f
            nmi: inc ebx
            mov eax, ebx
            out 0xE9, eax
            cmp ebx, 1
            jne 1f
            mov dword ptr [rbp + 0x300], 0x400
            nop
            nop
            mov eax, 0x55
            out 0xE9, eax
            1: iretq
            tick: iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [1, 0x55, 2, 0xEE])
    }

    /// INIT and SIPI start the second vCPU in real mode; its store is seen here.
    @Test func startUp() throws {
        let guest = try guest(
            """
            mov rsi, offset trampoline
            mov edi, 0x3000
            mov ecx, 64
            rep movsb
            mov dword ptr [rbp + 0x310], 0x01000000
            mov dword ptr [rbp + 0x300], 0x4500
            mov dword ptr [rbp + 0x300], 0x4603
            1: pause
            cmp dword ptr [0x4000], 0
            je 1b
            mov eax, [0x4000]
            out 0xE9, eax
            jmp 9f
            tick: iretq
            .code16
            trampoline:
            xor ax, ax
            mov ds, ax
            mov ax, cs
            mov [0x4000], ax
            cli
            hlt
            .code64
            9:
            """, vcpuCount: 2)
        guest.run()
        #expect(guest.reports == [0x300])
    }

    /// A guest that floods itself: each handler asks for the next interrupt before it ends, and a timer of the shortest period rings
    /// besides. None is lost, and the handler's word that no more may come holds.
    @Test func flood() throws {
        let guest = try guest(
            """
            mov dword ptr [rbp + 0x3E0], 0xB
            mov dword ptr [rbp + 0x320], 0x20040
            mov dword ptr [rbp + 0x380], 1
            xor ebx, ebx
            mov dword ptr [rbp + 0x300], 0x44040
            sti
            1: pause
            cmp ebx, 50000
            jb 1b
            mov eax, ebx
            out 0xE9, eax
            jmp 9f
            tick: inc ebx
            mov dword ptr [rbp + 0x300], 0x44040
            mov dword ptr [rbp + 0xB0], 0
            cmp ebx, 50000
            jb 2f
            and dword ptr [rsp + 16], ~0x200
            2: iretq
            9:
            """)
        guest.run()
        #expect(guest.reports == [50000])
    }

    /// The other processor does nothing but interrupt this one, until it is told that 500 have arrived (many fall together).
    @Test func floodFromOutside() throws {
        let guest = try guest(
            """
            mov rsi, offset trampoline
            mov edi, 0x3000
            mov ecx, 96
            rep movsb
            mov dword ptr [rbp + 0x310], 0x01000000
            mov dword ptr [rbp + 0x300], 0x4500
            mov dword ptr [rbp + 0x300], 0x4603
            xor ebx, ebx
            sti
            1: pause
            cmp byte ptr [0x4000], 2
            jne 1b
            mov eax, 1
            out 0xE9, eax
            jmp 9f
            tick: inc ebx
            mov dword ptr [rbp + 0xB0], 0
            cmp ebx, 500
            jne 2f
            mov byte ptr [0x4000], 1
            2: iretq
            .code16
            trampoline:
            xor ax, ax
            mov ds, ax
            # Its APIC's registers are reached by segments of 4 GiB: big real mode.
            lgdt cs:[table - trampoline]
            mov eax, cr0
            inc ax
            mov cr0, eax
            mov bx, 0x10
            mov ds, bx
            dec ax
            mov cr0, eax
            mov ebx, 0xFEE00300
            mov dword ptr [ebx + 0x10], 0
            2: mov dword ptr [ebx], 0x4040
            cmp byte ptr cs:[0x1000], 1
            jne 2b
            mov byte ptr [0x4000], 2
            cli
            hlt
            table: .word 0xFF
            .long 0x500
            .code64
            9:
            """, vcpuCount: 2)
        guest.run()
        #expect(guest.reports == [1])
    }

    /// Two processors that kick each other out of HLT with interrupts off are never taken for a guest that nobody can wake.
    @Test func kicksToAndFro() throws {
        let guest = try guest(
            """
            mov rsi, offset trampoline
            mov edi, 0x3000
            mov ecx, 64
            rep movsb
            mov dword ptr [rbp + 0x310], 0x01000000
            mov dword ptr [rbp + 0x300], 0x4500
            mov dword ptr [rbp + 0x300], 0x4603
            mov esi, 3000
            1: mov eax, 5
            mov ecx, 1
            vmcall
            cli
            hlt
            dec esi
            jnz 1b
            movzx eax, word ptr [0x4000]
            out 0xE9, eax
            jmp 9f
            tick: iretq
            .code16
            trampoline:
            xor ax, ax
            mov ds, ax
            2: cli
            hlt
            inc word ptr [0x4000]
            mov eax, 5
            xor ecx, ecx
            vmcall
            jmp 2b
            .code64
            9:
            """, vcpuCount: 2)
        guest.run()
        #expect(guest.reports == [3000])
    }

    /// A stop request ends a guest that never exits by itself, asleep or not.
    @Test(arguments: ["1: jmp 1b", "sti\n1: hlt\njmp 1b"])
    func stop(_ loop: String) throws {
        let guest = try guest(loop + "\ntick: iretq")
        let vcpu = guest.engine.vcpus[0]
        let thread = Thread {
            usleep(20_000)
            vcpu.requestStop()
        }
        thread.start()
        #expect(guest.run() == .stopped)
    }

    /// A state saved in the middle goes on in another machine.
    @Test func savedStateGoesOn() throws {
        let source = """
            mov ecx, 0x40000000
            1: dec ecx
            mov eax, 7
            test dword ptr [0x4000], 1
            jz 1b
            out 0xE9, eax
            jmp 9f
            tick: iretq
            9:
            """
        let first = try guest(source)
        let vcpu = first.engine.vcpus[0]
        let thread = Thread {
            usleep(20_000)
            vcpu.requestStop()
        }
        thread.start()
        #expect(first.run() == .stopped)
        let state = first.state

        let second = try guest(source)
        try second.engine.vcpus[0].restore(state)
        #expect(second.state.generalRegisters == state.generalRegisters)
        #expect(second.state.cr3 == state.cr3)
        #expect(second.state.localAPIC == state.localAPIC)
        for address in stride(from: 0x9000 as UInt64, to: 0x9800, by: 8) {
            second[address, as: UInt64.self] = first[address, as: UInt64.self]
        }
        second[0x4000, as: UInt32.self] = 1
        second.run()
        #expect(second.reports == [7])
    }

    /// States in which no CPU could be are refused and change nothing.
    @Test func impossibleStates() throws {
        let guest = try guest("tick: nop")
        let good = guest.state
        func refused(_ change: (inout VCPUState) -> Void) -> Bool {
            var state = good
            change(&state)
            do {
                try guest.engine.vcpus[0].restore(state)
                return false
            } catch {
                return guest.state.rip == good.rip && guest.state.cr0 == good.cr0
            }
        }
        #expect(refused { $0.generalRegisters = [] })
        #expect(refused { $0.cr0 = CR0.PG })
        #expect(refused { $0.efer &= ~EFER.LMA })
        #expect(refused { $0.cr4 = 1 << 40 })
        #expect(refused { $0.cr3 = .max })
        #expect(refused { $0.rip = 1 << 60 })
        #expect(refused { $0.gdtr.base = 1 << 60 })
        #expect(refused { $0.xcr0 = 4 })
        #expect(refused { $0.xsave = [1] })
        #expect(refused { $0.modelSpecificRegisters[MSR.LSTAR] = 1 << 60 })
        #expect(refused { $0.modelSpecificRegisters[0x1234_5678] = 1 })
        #expect(refused { $0.localAPIC = [0] })
        #expect(refused { $0.debugRegisters = [] })
    }
}
