import Testing

@testable import SoftEngine

/// Memory that two vCPUs work on at once: locked instructions, and the order of stores.
@Suite struct SharedMemoryTests {
    /// vCPU 0 runs `boot` in long mode. vCPU 1 runs `other` in real mode after that has stored 1 to the byte at 0x6000, until `other` is over.
    private func guest(boot: String, other: String) throws -> GuestProgram {
        let guest = try GuestProgram(
            GuestProgram.withHandlers(
                """
                mov rsi, offset trampoline
                mov edi, 0x3000
                mov ecx, offset trampoline_end
                sub ecx, esi
                rep movsb
                mov eax, 0xFEE00000
                mov dword ptr [rax + 0xF0], 0x1FF
                mov dword ptr [rax + 0x310], 0x01000000
                mov dword ptr [rax + 0x300], 0x4500
                mov dword ptr [rax + 0x300], 0x4603
                1: pause
                cmp byte ptr [0x6001], 1
                jne 1b
                mov byte ptr [0x6000], 1
                \(boot)
                1: pause
                cmp byte ptr [0x6001], 2
                jne 1b
                jmp 9f
                .code16
                trampoline:
                xor ax, ax
                mov ds, ax
                mov byte ptr [0x6001], 1
                1: pause
                cmp byte ptr [0x6000], 1
                jne 1b
                \(other)
                mov byte ptr [0x6001], 2
                cli
                hlt
                trampoline_end:
                .code64
                9:
                mov eax, [0x4FFE]
                out 0xE9, eax
                cli
                hlt
                """), bits: 64, vcpuCount: 2)
        // The APIC's page.
        guest[0x10_1018, as: UInt64.self] = 0x10_5007
        guest[0x10_5FB8, as: UInt64.self] = 0xFEE0_0087
        return guest
    }

    /// A locked sum over a page edge, against locked and plain stores to single bytes of it by the other vCPU: none is lost.
    @Test(
        arguments: [
            // Both over the edge.
            ("lock add dword ptr [0x4FFE], 1", "lock add dword ptr [0x4FFE], 0x1000000", 0x1000_2710),
            ("mov eax, 1\nlock xadd dword ptr [0x4FFE], eax", "lock inc byte ptr [0x5001]", 0x1000_2710),
            (
                "1: mov eax, [0x4FFE]\nlea edx, [rax + 1]\nlock cmpxchg [0x4FFE], edx\njne 1b",
                "lock inc byte ptr [0x5001]", 0x1000_2710
            ),
            // Not a store is lost of one who writes plainly.
            ("lock add dword ptr [0x4FFE], 1", "mov byte ptr [0x5001], cl", 0x0100_2710),
        ])
    func lockOverAPageEdge(_ split: String, _ against: String, sum: UInt32) throws {
        let guest = try guest(
            boot: """
                mov ecx, 10000
                2: \(split)
                dec ecx
                jnz 2b
                """,
            other: """
                mov cx, 10000
                2: \(against)
                dec cx
                jnz 2b
                """)
        guest.run()
        #expect(guest.reports == [sum], "\(split) against \(against)")
    }

    /// What was stored first is seen first (SDM vol. 3, 9.2.3.3).
    @Test func storesAreSeenInOrder() throws {
        let guest = try guest(
            boot: """
                mov ecx, 60000
                2: mov [0x6010], ecx
                mov [0x7050], ecx
                dec ecx
                jnz 2b
                """,
            other: """
                xor edx, edx
                mov cx, 10000
                2: mov eax, [0x7050]
                mov ebx, [0x6010]
                test eax, eax
                jz 3f
                cmp ebx, eax
                jbe 3f
                inc dword ptr [0x4FFE]
                3: dec cx
                jnz 2b
                """)
        guest.run()
        #expect(guest.reports == [0])
    }
}
