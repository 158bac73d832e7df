// Steal time (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME): the guest is told for how long the host ran others while a vCPU
// was ready to run, and does not count that as its programs' own.

import CDavit
import GuestMemory
import HostLinux

/// What a vCPU has been told.
struct StealTime {
    /// Of the vCPU's thread; nil until it is asked for, and after the thread has changed.
    var wait: ProcessorWait?
    /// Of `wait`, in nanoseconds, when the guest was told.
    var told: UInt64 = 0
    /// The host's counter then.
    var tsc: UInt64 = 0
}

extension Interpreter {
    /// The host counts it.
    static let hasStealTime = ProcessorWait() != nil

    /// `kvm_steal_time`, in bytes, and the alignment of its place.
    private static let stealTimeSize: UInt64 = 64

    /// MSR 0x4B564D03: bit 0 enables, the rest is where `kvm_steal_time` is. Throws #GP if that is not RAM.
    func writeStealTimePlace(_ value: UInt64) throws(GuestFault) {
        guard isStealTimePlace(value) else { throw .generalProtection }
        system.pointee.stealTimePlace = value
        stealTime = StealTime()
        // KVM, which may have had the vCPU before, leaves word there that it has none of the host's processors.
        if value & 1 != 0 { writePhysical((value & ~1) &+ 16, size: 1, 0) }
    }

    /// The MSR may have this value.
    func isStealTimePlace(_ value: UInt64) -> Bool {
        guard Self.hasStealTime, value & 0x3E == 0 else { return false }
        return value & 1 == 0
            || memory.pointer(at: GuestPhysicalAddress(value & ~1), count: Self.stealTimeSize) != nil
    }

    /// To be called before an interrupt: the guest's clock looks at it there. What it costs limits it to once in two milliseconds.
    func tellStealTime() {
        guard system.pointee.stealTimePlace & 1 != 0 else { return }
        let now = davit_rdtsc()
        guard now &- stealTime.tsc > cpuid.tscFrequency / 500 else { return }
        stealTime.tsc = now
        if stealTime.wait == nil {
            stealTime.wait = ProcessorWait()
            stealTime.told = stealTime.wait?.nanoseconds ?? 0
        }
        guard let total = stealTime.wait?.nanoseconds, total > stealTime.told else { return }
        let place = system.pointee.stealTimePlace & ~1
        // RAM, as checked when the MSR was written. It is the vCPU's own, whose thread this is.
        let steal = readPhysical(place, size: 8)
        let version = readPhysical(place &+ 8, size: 4)
        // An odd version means that the rest is being written.
        writePhysical(place &+ 8, size: 4, version | 1)
        davit_fence()
        writePhysical(place, size: 8, steal &+ (total &- stealTime.told))
        davit_fence()
        writePhysical(place &+ 8, size: 4, (version | 1) &+ 1 & 0xFFFF_FFFF)
        stealTime.told = total
    }
}
