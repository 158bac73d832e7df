// kvmclock (Linux, Documentation/virt/kvm/x86/msr.rst): the guest computes nanoseconds from its TSC by a scale found in a page of its own.

import CDavit
import GuestMemory

extension Interpreter {
    /// MSR 0x4B564D01: bit 0 enables, the rest is where `pvclock_vcpu_time_info` goes. Throws #GP if that is not RAM.
    func writeSystemTime(_ value: UInt64) throws(GuestFault) {
        guard isSystemTimePlace(value) else { throw .generalProtection }
        system.pointee.kvmSystemTime = value
        if value & 1 != 0 { publishSystemTime() }
    }

    /// The MSR may have this value.
    func isSystemTimePlace(_ value: UInt64) -> Bool {
        let address = value & ~1
        return value & 1 == 0 || address & 3 == 0 && memory.pointer(at: GuestPhysicalAddress(address), count: 32) != nil
    }

    /// Fills `pvclock_vcpu_time_info`. All vCPUs have the same pair of TSC and time, that of the machine's start, so that the clock never goes
    /// backwards between them.
    func publishSystemTime() {
        let address = system.pointee.kvmSystemTime & ~1
        let (multiplier, shift) = Self.nanosecondScale(tscFrequency: cpuid.tscFrequency)
        let version = (try? memory.read(UInt32.self, at: GuestPhysicalAddress(address))) ?? 0
        func put<Value: BitwiseCopyable>(_ value: Value, at offset: UInt64) {
            // RAM, as checked when the MSR was written.
            try? memory.write(value, at: GuestPhysicalAddress(address &+ offset))
        }
        // An odd version means that the rest is being written.
        put((version | 1) &+ 2, at: 0)
        put(cpu.pointee.tsc_offset &+ start.tsc, at: 8)
        put(start.time, at: 16)
        put(multiplier, at: 24)
        put(shift, at: 28)
        // PVCLOCK_TSC_STABLE_BIT.
        put(UInt8(1), at: 29)
        davit_fence()
        put((version | 1) &+ 3, at: 0)
    }

    /// MSR 0x4B564D00: `pvclock_wall_clock`, the time of day at which system time was zero.
    func writeWallClock(_ address: UInt64) throws(GuestFault) {
        guard memory.pointer(at: GuestPhysicalAddress(address), count: 12) != nil else { throw .generalProtection }
        let zero = (clock?.wallClock ?? 0) &- Int64(truncatingIfNeeded: clock?.now ?? 0)
        let version = (try? memory.read(UInt32.self, at: GuestPhysicalAddress(address))) ?? 0
        try? memory.write((version | 1) &+ 2, at: GuestPhysicalAddress(address))
        try? memory.write(
            UInt32(truncatingIfNeeded: zero / 1_000_000_000), at: GuestPhysicalAddress(address &+ 4))
        try? memory.write(
            UInt32(truncatingIfNeeded: zero % 1_000_000_000), at: GuestPhysicalAddress(address &+ 8))
        davit_fence()
        try? memory.write((version | 1) &+ 3, at: GuestPhysicalAddress(address))
    }

    /// Multiplier and shift with which `((cycles << shift) * multiplier) >> 32` gives nanoseconds; a negative shift goes right.
    static func nanosecondScale(tscFrequency: UInt64) -> (multiplier: UInt32, shift: Int8) {
        var frequency = max(tscFrequency, 1)
        var shift: Int8 = 0
        // Bring the frequency between 1 and 2 GHz, so that the multiplier uses its 32 bits.
        while frequency > 2_000_000_000 {
            frequency >>= 1
            shift -= 1
        }
        while frequency <= 1_000_000_000 {
            frequency <<= 1
            shift += 1
        }
        // With the exact frequency, for the loop above has dropped bits: 10^9 * 2^32 / (f * 2^shift).
        let exact = max(tscFrequency, 1)
        let numerator: (high: UInt64, low: UInt64) =
            shift < 0
            ? (1_000_000_000 as UInt64).multipliedFullWidth(by: 1 << (32 &+ UInt64(-Int64(shift))))
            : (1_000_000_000 as UInt64).multipliedFullWidth(by: 1 << 32)
        let divisor = shift > 0 ? exact << UInt64(shift) : exact
        // The quotient is below 2^32: the scaled frequency lies above 10^9.
        guard numerator.high < divisor else { return (UInt32.max, shift) }
        return (UInt32(clamping: divisor.dividingFullWidth(numerator).quotient), shift)
    }
}
