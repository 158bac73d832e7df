// Segments, descriptor tables, control registers, MSRs, caches, and the saving of extended state.
extension OpcodeTableBuilder {
    mutating func addSystem() {
        addSegments()
        addDescriptorTables()
        addRegisters()
        addCPU()
        addCaches()
        addExtendedState()
    }

    private mutating func addSegments() {
        group = .segment
        add(.one(0x8C), "mov", .movFromSegment, .e, .v, .none, .modrm)
        add(.one(0x8E), "mov", .movToSegment, .e, .b2, .none, .modrm)
        add(.one(0xC4).not64.memory, "les", .les, .ge, .v, .none, .modrm)
        add(.one(0xC5).not64.memory, "lds", .lds, .ge, .v, .none, .modrm)
        add(.x0F(0xB2).memory, "lss", .lss, .ge, .far, .none, .modrm)
        add(.x0F(0xB4).memory, "lfs", .lfs, .ge, .far, .none, .modrm)
        add(.x0F(0xB5).memory, "lgs", .lgs, .ge, .far, .none, .modrm)
        add(.one(0x63).not64, "arpl", .arpl, .eg, .b2, .none, .modrm)
        add(.x0F(0x02), "lar", .lar, .ge, .v, .none, .modrm)
        add(.x0F(0x03), "lsl", .lsl, .ge, .v, .none, .modrm)
        add(.x0F(0x00).reg(4), "verr", .verr, .e, .b2, .none, .modrm)
        add(.x0F(0x00).reg(5), "verw", .verw, .e, .b2, .none, .modrm)
        add(.x0F(0xAE).pF3.register.reg(0).only64, "rdfsbase", .rdfsbase, .e, .y, .none, .modrm, feature: .fsgsbase)
        add(.x0F(0xAE).pF3.register.reg(1).only64, "rdgsbase", .rdgsbase, .e, .y, .none, .modrm, feature: .fsgsbase)
        add(.x0F(0xAE).pF3.register.reg(2).only64, "wrfsbase", .wrfsbase, .e, .y, .none, .modrm, feature: .fsgsbase)
        add(.x0F(0xAE).pF3.register.reg(3).only64, "wrgsbase", .wrgsbase, .e, .y, .none, .modrm, feature: .fsgsbase)
        add(.x0F(0x01).modrm(0xF8).only64, "swapgs", .swapgs, .none, .none, .none, .modrm)
    }

    private mutating func addDescriptorTables() {
        group = .system
        add(.x0F(0x00).reg(0), "sldt", .sldt, .e, .v, .none, .modrm)
        add(.x0F(0x00).reg(1), "str", .str, .e, .v, .none, .modrm)
        add(.x0F(0x00).reg(2), "lldt", .lldt, .e, .b2, .none, .modrm)
        add(.x0F(0x00).reg(3), "ltr", .ltr, .e, .b2, .none, .modrm)
        add(.x0F(0x01).reg(0).memory, "sgdt", .sgdt, .m, .native, .none, .modrm)
        add(.x0F(0x01).reg(1).memory, "sidt", .sidt, .m, .native, .none, .modrm)
        add(.x0F(0x01).reg(2).memory.only64, "lgdt", .lgdt, .m, .native, .none, .modrm)
        add(.x0F(0x01).reg(3).memory.only64, "lidt", .lidt, .m, .native, .none, .modrm)
        add(.x0F(0x01).reg(2).memory, "lgdt", .lgdt, .m, .v, .none, .modrm)
        add(.x0F(0x01).reg(3).memory, "lidt", .lidt, .m, .v, .none, .modrm)
    }

    private mutating func addRegisters() {
        add(.x0F(0x01).reg(4), "smsw", .smsw, .e, .v, .none, .modrm)
        add(.x0F(0x01).reg(6), "lmsw", .lmsw, .e, .b2, .none, .modrm)
        add(.x0F(0x06), "clts", .clts)
        add(.x0F(0x20), "mov", .movFromCR, .none, .native, .none, [.modrm, .registerOnly])
        add(.x0F(0x21), "mov", .movFromDR, .none, .native, .none, [.modrm, .registerOnly])
        add(.x0F(0x22), "mov", .movToCR, .none, .native, .none, [.modrm, .registerOnly])
        add(.x0F(0x23), "mov", .movToDR, .none, .native, .none, [.modrm, .registerOnly])
        add(.x0F(0x30), "wrmsr", .wrmsr)
        add(.x0F(0x32), "rdmsr", .rdmsr)
        add(.x0F(0x33), "rdpmc", .rdpmc)
    }

    private mutating func addCPU() {
        add(.one(0xF4), "hlt", .hlt)
        add(.one(0xFA), "cli", .cli)
        add(.one(0xFB), "sti", .sti)
        add(.x0F(0x01).modrm(0xCA).np, "clac", .clac, .none, .none, .none, .modrm, feature: .smap)
        add(.x0F(0x01).modrm(0xCB).np, "stac", .stac, .none, .none, .none, .modrm, feature: .smap)
        add(.x0F(0xA2), "cpuid", .cpuid)
        add(.x0F(0x31), "rdtsc", .rdtsc)
        add(.x0F(0x01).modrm(0xF9), "rdtscp", .rdtscp, .none, .none, .none, .modrm, feature: .rdtscp)
        add(.x0F(0xC7).pF3.register.reg(7), "rdpid", .rdpid, .e, .native, .none, .modrm, feature: .rdpid)
        add(.x0F(0xC7).noRep.register.reg(6), "rdrand", .rdrand, .e, .v, .none, .modrm, feature: .rdrand)
        add(.x0F(0xC7).noRep.register.reg(7), "rdseed", .rdseed, .e, .v, .none, .modrm, feature: .rdseed)
        add(.x0F(0x05), "syscall", .syscall, feature: .syscall)
        add(.x0F(0x07), "sysret", .sysret, .none, .v, feature: .syscall)
        add(.x0F(0x34), "sysenter", .sysenter, feature: .sysenter)
        add(.x0F(0x35), "sysexit", .sysexit, .none, .v, feature: .sysenter)
        add(.x0F(0x01).modrm(0xC1), "vmcall", .vmcall, .none, .none, .none, .modrm)
        add(.x0F(0x01).modrm(0xD9), "vmmcall", .vmmcall, .none, .none, .none, .modrm)
        add(.x0F(0x01).modrm(0xC8), "monitor", .monitor, .none, .none, .none, .modrm, feature: .monitor)
        add(.x0F(0x01).modrm(0xC9), "mwait", .mwait, .none, .none, .none, .modrm, feature: .monitor)
    }

    private mutating func addCaches() {
        add(.x0F(0x01).reg(7).memory, "invlpg", .invlpg, .m, .none, .none, .modrm)
        add(.x0F38(0x82).p66.memory, "invpcid", .invpcid, .ge, .b16, .none, .modrm, feature: .invpcid)
        add(.x0F(0x08), "invd", .invd)
        add(.x0F(0x09), "wbinvd", .wbinvd)
        add(.x0F(0xAE).np.memory.reg(7), "clflush", .clflush, .m, .b1, .none, .modrm, feature: .clflush)
        add(.x0F(0xAE).p66.memory.reg(7), "clflushopt", .clflush, .m, .b1, .none, .modrm, feature: .clflushopt)
        add(.x0F(0xAE).p66.memory.reg(6), "clwb", .clflush, .m, .b1, .none, .modrm, feature: .clwb)
        add(.x0F(0x01).modrm(0xFC).noRep, "clzero", .clzero, .none, .none, .none, .modrm, feature: .clzero)
        add(.x0F(0xAE).np.register.reg(5), "lfence", .fence, .none, .none, .none, .modrm, feature: .sse2)
        add(.x0F(0xAE).np.register.reg(6), "mfence", .fence, .none, .none, .none, .modrm, feature: .sse2)
        add(.x0F(0xAE).np.register.reg(7), "sfence", .fence, .none, .none, .none, .modrm, feature: .sse)
    }

    /// `operandSize` is 8 for the 64-bit forms (REX.W), which save 64-bit x87 pointers; the size of the area is not there.
    private mutating func addExtendedState() {
        group = .extendedState
        add(.x0F(0xAE).np.memory.reg(0), "fxsave", .fxsave, .m, .y, .none, .modrm, feature: .fxsr)
        add(.x0F(0xAE).np.memory.reg(1), "fxrstor", .fxrstor, .m, .y, .none, .modrm, feature: .fxsr)
        add(.x0F(0xAE).np.memory.reg(2), "ldmxcsr", .ldmxcsr, .m, .b4, .none, .modrm, feature: .sse)
        add(.x0F(0xAE).np.memory.reg(3), "stmxcsr", .stmxcsr, .m, .b4, .none, .modrm, feature: .sse)
        add(.x0F(0xAE).np.memory.reg(4), "xsave", .xsave, .m, .y, .none, .modrm, feature: .xsave)
        add(.x0F(0xAE).np.memory.reg(5), "xrstor", .xrstor, .m, .y, .none, .modrm, feature: .xsave)
        add(.x0F(0xAE).np.memory.reg(6), "xsaveopt", .xsaveopt, .m, .y, .none, .modrm, feature: .xsaveopt)
        add(.x0F(0xC7).np.memory.reg(3), "xrstors", .xrstors, .m, .y, .none, .modrm, feature: .xsaves)
        add(.x0F(0xC7).np.memory.reg(4), "xsavec", .xsavec, .m, .y, .none, .modrm, feature: .xsavec)
        add(.x0F(0xC7).np.memory.reg(5), "xsaves", .xsaves, .m, .y, .none, .modrm, feature: .xsaves)
        add(.x0F(0xAE).vex.np.l0.noVVVV.memory.reg(2), "vldmxcsr", .ldmxcsr, .m, .b4, .none, .modrm, feature: .avx)
        add(.x0F(0xAE).vex.np.l0.noVVVV.memory.reg(3), "vstmxcsr", .stmxcsr, .m, .b4, .none, .modrm, feature: .avx)
        add(.x0F(0x01).modrm(0xD0).np, "xgetbv", .xgetbv, .none, .none, .none, .modrm, feature: .xsave)
        add(.x0F(0x01).modrm(0xD1).np, "xsetbv", .xsetbv, .none, .none, .none, .modrm, feature: .xsave)
        add(.x0F(0x77).vex.np.l0.noVVVV, "vzeroupper", .vzero, feature: .avx)
        add(.x0F(0x77).vex.np.l1.noVVVV, "vzeroall", .vzero, feature: .avx)
        add(.x0F(0x77).np, "emms", .emms, feature: .mmx)
        add(.one(0x9B), "fwait", .fwait)
    }
}
