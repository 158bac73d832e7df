// Paravirtual EOI (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN): while bit 0 of a word in the guest's memory is set, the
// guest ends the interrupt in service by clearing it, instead of by a write to the APIC, which would be an exit.

import CDavit
import GuestMemory

extension Interpreter {
    /// MSR 0x4B564D04: bit 0 enables, the rest is where the word is. Throws #GP if that is not RAM.
    func writeEndOfInterruptPlace(_ value: UInt64) throws(GuestFault) {
        guard isEndOfInterruptPlace(value) else { throw .generalProtection }
        settleEndOfInterrupt()
        system.pointee.endOfInterruptPlace = value
    }

    /// The MSR may have this value.
    func isEndOfInterruptPlace(_ value: UInt64) -> Bool {
        value & 1 == 0
            || value & 2 == 0 && memory.pointer(at: GuestPhysicalAddress(value & ~3), count: 4) != nil
    }

    /// To be called when an interrupt has been taken into service: lets the guest end it by the word, unless that would hide something,
    /// a level to be told of or an interrupt that waits behind.
    func offerEndOfInterrupt(_ vector: UInt8) {
        guard system.pointee.endOfInterruptPlace & 1 != 0, let apic, apic.isAlone(inService: vector) else { return }
        system.pointee.endOfInterruptIsOffered = true
        setEndOfInterruptBit(true)
    }

    /// To be called before the APIC's state is looked at or changed: does what the guest has said by the word since, and takes the offer
    /// back.
    func settleEndOfInterrupt() {
        guard system.pointee.endOfInterruptIsOffered else { return }
        system.pointee.endOfInterruptIsOffered = false
        if endOfInterruptBit { setEndOfInterruptBit(false) } else { apic?.endOfInterrupt() }
    }

    /// In RAM, as checked when the MSR was written. It is the vCPU's own, whose thread this is.
    private var endOfInterruptWord: UInt64 { system.pointee.endOfInterruptPlace & ~3 }

    private var endOfInterruptBit: Bool { readPhysical(endOfInterruptWord, size: 4) & 1 != 0 }

    private func setEndOfInterruptBit(_ isSet: Bool) {
        let word = readPhysical(endOfInterruptWord, size: 4)
        writePhysical(endOfInterruptWord, size: 4, isSet ? word | 1 : word & ~1)
    }
}
