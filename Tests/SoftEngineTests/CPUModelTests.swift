import CDavit
import Testing
import X86

@testable import SoftEngine

/// What the guest's CPUID says, for a host of either vendor.
@Suite struct CPUModelTests {
    /// A host with all bits of every feature leaf set.
    private func model(vendor: String, vcpuCount: Int = 1) -> CPUModel {
        let bytes = Array(vendor.utf8)
        func word(_ i: Int) -> UInt32 { (0..<4).reduce(0) { $0 | UInt32(bytes[i + $1]) << UInt32($1 * 8) } }
        return CPUModel(vcpuCount: vcpuCount, tscFrequency: 2_500_000_000) { leaf, subleaf in
            switch leaf {
            case 0: CPUIDAnswer(eax: 0x20, ebx: word(0), ecx: word(8), edx: word(4))
            case 0x8000_0000: CPUIDAnswer(eax: 0x8000_0021)
            case 0x8000_0008: CPUIDAnswer(eax: 0x3030, ebx: .max, ecx: .max)
            case 4, 0x8000_001D: subleaf < 3 ? CPUIDAnswer(eax: subleaf << 5 | 1) : CPUIDAnswer()
            default: CPUIDAnswer(eax: .max, ebx: .max, ecx: .max, edx: .max)
            }
        }
    }

    private func ask(_ model: CPUModel, _ leaf: UInt32, _ subleaf: UInt32 = 0, apicID: UInt32 = 0) -> CPUIDAnswer {
        var cpu = davit_cpu.blank
        cpu.apic_base = 0xFEE0_0900
        cpu.xcr0 = 3
        return withUnsafePointer(to: &cpu) { model.answer(leaf: leaf, subleaf: subleaf, cpu: $0, apicID: apicID) }
    }

    @Test(arguments: ["GenuineIntel", "AuthenticAMD"])
    func nothingThatIsNotCarried(_ vendor: String) {
        let model = model(vendor: vendor)
        let features = ask(model, 1)
        // MONITOR, VMX, SMX; DTES, thermal.
        for bit in [3, 5, 6, 8] as [UInt32] { #expect(features.ecx >> bit & 1 == 0, "1.ECX.\(bit)") }
        for bit in [1, 18, 21, 22, 29] as [UInt32] { #expect(features.edx >> bit & 1 == 0, "1.EDX.\(bit)") }
        let structured = ask(model, 7)
        // SGX, HLE, MPX, RTM, AVX-512 in all its parts.
        for bit in [2, 4, 11, 14, 16, 17, 21, 26, 27, 28, 30, 31] as [UInt32] {
            #expect(structured.ebx >> bit & 1 == 0, "7.EBX.\(bit)")
        }
        #expect(structured.ecx & ~(1 << 2 | 1 << 22) == 0)
        #expect(ask(model, 7, 1) == CPUIDAnswer())
        // SVM.
        #expect(ask(model, 0x8000_0001).ecx >> 2 & 1 == 0)
        #expect(ask(model, 0x8000_000A) == (vendor == "AuthenticAMD" ? CPUIDAnswer() : ask(model, 0x16)))
        #expect(ask(model, 5) == CPUIDAnswer())
        #expect(ask(model, 0xA) == CPUIDAnswer())
    }

    @Test func whatTheEngineBrings() {
        let model = model(vendor: "AuthenticAMD")
        let features = ask(model, 1)
        // PCID, x2APIC, TSC deadline, hypervisor; APIC.
        for bit in [17, 21, 24, 31] as [UInt32] { #expect(features.ecx >> bit & 1 == 1) }
        #expect(features.edx & CPUIDBits.APIC != 0)
        #expect(ask(model, 0x8000_0007).edx == 1 << 8)
        #expect(ask(model, 0x4000_0000).ebx == 0x4B4D_564B)
        #expect(
            ask(model, 0x4000_0001).eax == 1 << 3 | (Interpreter.hasStealTime ? 1 << 5 : 0) | 1 << 6 | 1 << 7 | 1 << 24)
        #expect(ask(model, 0x4000_0010).eax == 2_500_000)
        #expect(ask(model, 0x8000_0008).eax == 0x3030)
        // XSAVE's area: 576 bytes for x87 and SSE, 832 with AVX.
        #expect(ask(model, 0xD) == CPUIDAnswer(eax: 7, ebx: 576, ecx: 832, edx: 0))
        #expect(ask(model, 0xD, 2) == CPUIDAnswer(eax: 256, ebx: 576))
    }

    @Test func topologyOfThreeVCPUs() {
        let model = model(vendor: "AuthenticAMD", vcpuCount: 3)
        #expect(ask(model, 1, apicID: 2).ebx >> 24 == 2)
        #expect(ask(model, 1).ebx >> 16 & 0xFF == 4)
        #expect(ask(model, 0xB, 0, apicID: 2) == CPUIDAnswer(eax: 0, ebx: 1, ecx: 0x100, edx: 2))
        #expect(ask(model, 0xB, 1, apicID: 2) == CPUIDAnswer(eax: 2, ebx: 3, ecx: 0x201, edx: 2))
        #expect(ask(model, 0x8000_001E, apicID: 2).eax == 2)
        #expect(ask(model, 0x8000_0008).ecx == 2 << 12 | 2)
    }

    /// A frequency from the mHz range to tens of GHz gives nanoseconds to a part in 10^8.
    @Test(arguments: [1_000_000, 999_999_999, 1_000_000_000, 2_596_138_000, 5_000_000_000, 41_000_000_000] as [UInt64])
    func clockScale(_ frequency: UInt64) {
        let (multiplier, shift) = Interpreter.nanosecondScale(tscFrequency: frequency)
        let cycles = frequency * 10
        let scaled = shift < 0 ? cycles >> UInt64(-shift) : cycles << UInt64(shift)
        let (high, low) = scaled.multipliedFullWidth(by: UInt64(multiplier))
        let nanoseconds = high << 32 | low >> 32
        #expect((9_999_999_900...10_000_000_100).contains(nanoseconds))
    }
}

extension davit_cpu {
    /// All zeroes.
    static var blank: davit_cpu {
        let place = UnsafeMutablePointer<davit_cpu>.allocate(capacity: 1)
        defer { place.deallocate() }
        UnsafeMutableRawPointer(place).initializeMemory(
            as: UInt8.self, repeating: 0, count: MemoryLayout<davit_cpu>.size)
        return place.move()
    }
}
