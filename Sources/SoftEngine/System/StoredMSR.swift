/// A model-specific register that the engine keeps for the guest and otherwise ignores (Intel SDM vol. 4; AMD BKDG and PPR). MSRs with an
/// effect are in `Interpreter+MSR.swift`; any other number raises #GP.
struct StoredMSR {
    let number: UInt32
    /// Value after RESET.
    let reset: UInt64
    /// Bits that may be written; a write that sets others raises #GP, unless `ignoresWrites`.
    let writable: UInt64
    /// Writes are accepted and change nothing.
    let ignoresWrites: Bool

    private init(_ number: UInt32, _ reset: UInt64 = 0, writable: UInt64 = .max, ignoresWrites: Bool = false) {
        self.number = number
        self.reset = reset
        self.writable = writable
        self.ignoresWrites = ignoresWrites
    }

    /// In order of their numbers.
    static func table(isAMD: Bool, physicalAddressBits: UInt64) -> [StoredMSR] {
        (common(physicalAddressBits: physicalAddressBits) + (isAMD ? amd : intel)).sorted { $0.number < $1.number }
    }

    /// Machine-check banks, none of which ever reports anything.
    static let machineCheckBanks: UInt32 = 10

    private static func common(physicalAddressBits: UInt64) -> [StoredMSR] {
        let address = (1 as UInt64) << physicalAddressBits - 1
        var list = [
            // BIOS_SIGN_ID; on AMD the patch level. The highest, as Hyper-V has it: what microcode mends in the host's model is not
            // wrong with the guest's CPU, and no update is to be looked for.
            StoredMSR(0x8B, .max),
            // MTRRcap: 8 variable ranges, fixed ranges, write combining. The memory is write-back unless a range says otherwise.
            StoredMSR(0xFE, 0x508, writable: 0),
            StoredMSR(0x2FF, 0xC06, writable: 0xCFF),
            StoredMSR(0x179, 0x100 | UInt64(machineCheckBanks), writable: 0), StoredMSR(0x17A),
            StoredMSR(0x17B, .max),
            // DEBUGCTL: no last-branch records.
            StoredMSR(0x1D9, writable: 0, ignoresWrites: true),
        ]
        for range in 0..<UInt32(8) {
            list.append(StoredMSR(0x200 + range * 2, writable: address & ~0xF00))
            list.append(StoredMSR(0x201 + range * 2, writable: address & ~0x7FF))
        }
        for fixed in [0x250, 0x258, 0x259] + Array(0x268...0x26F) as [UInt32] {
            list.append(StoredMSR(fixed, 0x0606_0606_0606_0606))
        }
        for bank in 0..<machineCheckBanks {
            list.append(StoredMSR(0x400 + bank * 4, .max))
            for register in 1..<UInt32(4) { list.append(StoredMSR(0x400 + bank * 4 + register)) }
        }
        return list
    }

    private static let amd = [
        // SYSCFG: fixed-range MTRRs without extensions.
        StoredMSR(0xC001_0010),
        // HWCR: TscFreqSel, the TSC counts at the P0 frequency.
        StoredMSR(0xC001_0015, 1 << 24),
        // IORRs, TOP_MEM, TOP_MEM2.
        StoredMSR(0xC001_0016), StoredMSR(0xC001_0017), StoredMSR(0xC001_0018), StoredMSR(0xC001_0019),
        StoredMSR(0xC001_001A), StoredMSR(0xC001_001D),
        // NB_CFG1, PATCH_LOADER.
        StoredMSR(0xC001_001F),
        StoredMSR(0xC001_0020, ignoresWrites: true),
        // INT_PENDING_MSG, MMIO_CFG_BASE.
        StoredMSR(0xC001_0055), StoredMSR(0xC001_0058),
        // SMM base and mask: no SMM.
        StoredMSR(0xC001_0111), StoredMSR(0xC001_0112), StoredMSR(0xC001_0113),
        // OSVW: no erratum that the guest need work around.
        StoredMSR(0xC001_0140), StoredMSR(0xC001_0141),
        // CPPC: one level of performance. CAPABILITY_1, ENABLE, CAPABILITY_2, REQUEST, STATUS.
        StoredMSR(0xC001_02B0, 0xFFFF_FFFF, writable: 0), StoredMSR(0xC001_02B1, writable: 1),
        StoredMSR(0xC001_02B2, writable: 0), StoredMSR(0xC001_02B3, writable: 0xFFFF_FFFF),
        StoredMSR(0xC001_02B4, writable: 0),
        // CPUID feature registers; LS_CFG, IC_CFG, DC_CFG, FP_CFG, DE_CFG (LFENCE serializes), BU_CFG2.
        StoredMSR(0xC001_1002), StoredMSR(0xC001_1004), StoredMSR(0xC001_1005), StoredMSR(0xC001_1020),
        StoredMSR(0xC001_1021), StoredMSR(0xC001_1022), StoredMSR(0xC001_1023), StoredMSR(0xC001_1028),
        StoredMSR(0xC001_1029, 1 << 1), StoredMSR(0xC001_102A), StoredMSR(0xC001_102B), StoredMSR(0xC001_102D),
    ]

    private static let intel = [
        // PLATFORM_ID, EBL_CR_POWERON, FEATURE_CONTROL (locked, no VMX), BIOS_UPDT_TRIG.
        StoredMSR(0x17), StoredMSR(0x2A), StoredMSR(0x3A, 1, writable: 0), StoredMSR(0x79, ignoresWrites: true),
        // PLATFORM_INFO, MISC_FEATURES_ENABLES.
        StoredMSR(0xCE, writable: 0), StoredMSR(0x140, writable: 0),
    ]
}
