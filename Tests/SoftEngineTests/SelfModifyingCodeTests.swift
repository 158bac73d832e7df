import Foundation
import GuestMemory
import MachineModel
import Testing
import X86

@testable import SoftEngine

/// Code that changes under the CPU: every way in which a byte of cached code can be written.
@Suite struct SelfModifyingCodeTests {
    private func guest(_ body: String, vcpuCount: Int = 1) throws -> GuestProgram {
        try GuestProgram(GuestProgram.withHandlers(body + "\ncli\nhlt"), bits: 64, vcpuCount: vcpuCount)
    }

    /// A store to the very next instruction takes effect at once, in the block that is running.
    @Test func theNextInstruction() throws {
        let guest = try guest(
            """
            xor eax, eax
            mov ecx, 3
            again:
            mov byte ptr [rip + target + 1], cl
            target: mov al, 0x55
            out 0xE9, eax
            loop again
            """)
        guest.run()
        #expect(guest.reports == [3, 2, 1])
    }

    /// The same with a locked instruction and a string instruction.
    @Test func lockedAndStringStores() throws {
        let guest = try guest(
            """
            xor eax, eax
            mov ecx, 2
            again:
            lock inc byte ptr [rip + target + 1]
            target: mov al, 0x10
            out 0xE9, eax
            loop again
            mov ebx, 2
            more:
            lea rdi, [rip + second + 1]
            mov al, bl
            mov ecx, 1
            rep stosb
            xor eax, eax
            second: mov al, 0x10
            out 0xE9, eax
            dec ebx
            jnz more
            """)
        guest.run()
        #expect(guest.reports == [0x11, 0x12, 2, 1])
    }

    /// A store through another linear address of the same page.
    @Test func throughAnAlias() throws {
        let guest = try guest(
            """
            mov ebx, 3
            again: call routine
            out 0xE9, eax
            mov byte ptr [routine + 0x40000001], bl
            dec ebx
            jnz again
            jmp 9f
            routine: mov eax, 0x10
            ret
            9:
            """)
        guest[0x10_1008, as: UInt64.self] = 0x10_2007
        guest.run()
        #expect(guest.reports == [0x10, 3, 2])
    }

    /// A device writes: here a port write makes the test do so through `GuestMemory`.
    @Test func byDMA() throws {
        let memoryAddress: UInt64 = 0x5000
        let guest = try guest(
            """
            mov dword ptr [0x5000], 0x000010B8
            mov word ptr [0x5004], 0xC300
            mov ebx, 0x5000
            call rbx
            out 0xE9, eax
            wait: call rbx
            cmp eax, 0x20
            jne wait
            out 0xE9, eax
            """)
        let memory = guest.memory
        let ports = guest.ports
        let writer = Thread {
            while ports.reports.isEmpty { usleep(100) }
            try? memory.write(0x20 as UInt8, at: GuestPhysicalAddress(memoryAddress + 1))
        }
        writer.start()
        guest.run()
        #expect(guest.reports == [0x10, 0x20])
    }

    /// Another vCPU patches a routine that this one calls all the time, and calls it itself.
    @Test func byAnotherVCPU() throws {
        let guest = try guest(
            """
            # The trampoline at 0x3000 sends the other vCPU into a loop of patches.
            mov rsi, offset trampoline
            mov edi, 0x3000
            mov ecx, offset trampoline_end
            sub ecx, esi
            rep movsb
            mov dword ptr [0x4000], 0x0000B866
            mov dword ptr [0x4000], 0x000000B8
            mov word ptr [0x4004], 0xC300
            mov ebx, 0x4000
            mov eax, 0xFEE00000
            mov dword ptr [rax + 0xF0], 0x1FF
            mov dword ptr [rax + 0x310], 0x01000000
            mov dword ptr [rax + 0x300], 0x4500
            mov dword ptr [rax + 0x300], 0x4603
            mov esi, 0
            again: call rbx
            cmp eax, esi
            jb failed
            mov esi, eax
            cmp eax, 200
            jb again
            out 0xE9, eax
            jmp 9f
            failed: mov eax, 0xBAD
            out 0xE9, eax
            jmp 9f
            .code16
            trampoline:
            xor ax, ax
            mov ds, ax
            mov cx, 0
            patch: inc cx
            mov byte ptr [0x4001], cl
            mov dx, 2000
            delay: dec dx
            jnz delay
            cmp cx, 200
            jb patch
            cli
            hlt
            trampoline_end:
            .code64
            9:
            """, vcpuCount: 2)
        // Page 0x4000 and the APIC's page.
        guest[0x10_1018, as: UInt64.self] = 0x10_5007
        guest[0x10_5FB8, as: UInt64.self] = 0xFEE0_0087
        guest.run()
        #expect(guest.reports == [200])
    }

    /// An instruction that lies on two pages, the second of which changes.
    @Test func acrossAPageEdge() throws {
        let guest = try guest(
            """
            mov byte ptr [0x4FFE], 0xB8
            mov byte ptr [0x4FFF], 0x01
            mov dword ptr [0x5000], 0xC3000000
            mov ebx, 0x4FFE
            call rbx
            out 0xE9, eax
            mov byte ptr [0x5001], 0x02
            call rbx
            out 0xE9, eax
            """)
        guest.run()
        #expect(guest.reports == [1, 0x20001])
    }
}
