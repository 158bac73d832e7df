// A local APIC's saved state: the 4 KiB page that KVM_GET_LAPIC gives, a register each 16 bytes, IDs in x2APIC mode with 32 bits.

import MachineModel
import X86

extension LocalAPIC {
    static var pageSize: Int { 4096 }

    /// The register page; only while the vCPU does not run.
    func savePage() -> [UInt8] {
        var page = [UInt8](repeating: 0, count: Self.pageSize)
        // Before the other registers, where an interrupt that comes meanwhile is seen.
        let count = saveCount()
        for register in 0..<APICRegister.count {
            let value = register == APICRegister.currentCount ? count : registers[register]
            for byte in 0..<4 { page[register * 16 + byte] = UInt8(truncatingIfNeeded: value >> UInt32(byte * 8)) }
        }
        return page
    }

    /// Only while the vCPU does not run. An empty page stands for the state after RESET.
    /// `setTSCOffset` must follow. Throws, and changes nothing, if no local APIC could be
    /// in this state.
    func restore(page: [UInt8], base: UInt64, tscDeadline: UInt64) throws(InvalidVCPUState) {
        let mode = base & (APICBase.EN | APICBase.EXTD)
        guard base & 0x2FF == 0, mode != APICBase.EXTD else {
            throw InvalidVCPUState("apicBase: reserved bits, or x2APIC mode without the enable bit")
        }
        guard !page.isEmpty else {
            reset()
            setBase(base)
            return
        }
        guard page.count == Self.pageSize else {
            throw InvalidVCPUState("localAPIC: \(page.count) bytes long, not \(Self.pageSize)")
        }
        func saved(_ register: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(page[register * 16 + $1]) << UInt32($1 * 8) }
        }
        try Self.check(saved, id: mode == APICBase.EN | APICBase.EXTD ? id : id << 24)

        reset()
        for register in [
            APICRegister.TPR, APICRegister.LDR, APICRegister.DFR, APICRegister.SVR, APICRegister.ESR, APICRegister.ICR,
            APICRegister.ICRHigh, APICRegister.initialCount, APICRegister.divideConfiguration,
        ] + Array(APICRegister.ISR..<APICRegister.ESR) + Array(APICRegister.LVTTimer...APICRegister.LVTError) {
            registers[register] = saved(register)
        }
        // ID, and LDR in x2APIC mode, follow from the mode.
        setBase(base)
        updatePPR()
        restoreTimer(current: saved(APICRegister.currentCount), tscDeadline: tscDeadline)
        wakeIfInterruptWaits()
    }

    private static func check(_ saved: (Int) -> UInt32, id: UInt32) throws(InvalidVCPUState) {
        func require(_ condition: Bool, _ what: String) throws(InvalidVCPUState) {
            if !condition { throw InvalidVCPUState("localAPIC: \(what)") }
        }
        try require(saved(APICRegister.ID) == id, "ID is another vCPU's")
        try require(saved(APICRegister.TPR) >> 8 == 0, "TPR has reserved bits")
        try require(saved(APICRegister.SVR) & ~APICSVR.writable == 0, "SVR has reserved bits")
        try require(saved(APICRegister.ICR) & ~APICICR.writable == 0, "ICR has reserved bits")
        try require(saved(APICRegister.divideConfiguration) & ~0xB == 0, "DCR has reserved bits")
        for entry in APICRegister.LVTTimer...APICRegister.LVTError {
            try require(
                saved(entry) & ~(APICLVT.writable(entry) | 1 << 12 | 1 << 14) == 0,
                "LVT entry \(entry) has reserved bits")
        }
        for set in [APICRegister.ISR, APICRegister.IRR] {
            try require(saved(set) & 0xFFFF == 0, "a vector below 16 is pending or in service")
        }
    }
}
