import MachineModel

/// What the guest finds of KVM's paravirtual interface (Linux, Documentation/virt/kvm/x86): the clock, the time that the host took, ends of
/// interrupts without an exit, and the kick that ends another vCPU's HLT.
enum KVMInterface {
    static let systemTimeMSR: UInt32 = 0x4B56_4D01
    static let wallClockMSR: UInt32 = 0x4B56_4D00
    static let stealTimeMSR: UInt32 = 0x4B56_4D03
    static let endOfInterruptMSR: UInt32 = 0x4B56_4D04

    /// CPUID's features (leaf 0x40000001, EAX).
    enum Feature {
        /// The clock at the MSRs above.
        static let clocksource2: UInt32 = 1 << 3
        static let stealTime: UInt32 = 1 << 5
        static let endOfInterrupt: UInt32 = 1 << 6
        static let unhalt: UInt32 = 1 << 7
        /// The clock never goes backwards between vCPUs.
        static let clocksourceStable: UInt32 = 1 << 24
    }

    /// Leaves 0x40000000-0x4000FFFF; those that are not there answer with zeroes.
    static func cpuid(_ leaf: UInt32, tscFrequency: UInt64, _ features: ProcessorFeatures) -> CPUIDAnswer {
        switch leaf {
        // "KVMKVMKVM\0\0\0"
        case 0x4000_0000: CPUIDAnswer(eax: 0x4000_0010, ebx: 0x4B4D_564B, ecx: 0x564B_4D56, edx: 0x4D)
        case 0x4000_0001:
            // The two clocks are what every engine has.
            CPUIDAnswer(
                eax: Feature.clocksource2 | Feature.clocksourceStable
                    | (Interpreter.hasStealTime ? Feature.stealTime : 0)
                    | (features == .host ? Feature.endOfInterrupt | Feature.unhalt : 0))
        // TSC and bus frequencies in kHz, as VMware and QEMU give them.
        case 0x4000_0010: CPUIDAnswer(eax: UInt32(clamping: tscFrequency / 1000), ebx: 1_000_000)
        default: CPUIDAnswer()
        }
    }

    /// Hypercall KVM_HC_KICK_CPU: RCX is the APIC ID.
    static let kick: UInt64 = 5

    /// The answer to a hypercall that is not known, and to one from a level above 0.
    static let noSuchCall = UInt64(bitPattern: -1000)
    static let notPermitted = UInt64(bitPattern: -1)
}
