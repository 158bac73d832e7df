// Branches, calls, returns, software interrupts and port I/O.
extension OpcodeTableBuilder {
    mutating func addControlFlow() {
        group = .branch
        for condition in UInt8(0)..<16 {
            add(.one(0x70 + condition), "j", .jcc, .relative, .branch, .relative8)
            add(.x0F(0x80 + condition), "j", .jcc, .relative, .branch, .relativeZ)
        }
        add(.one(0xE0), "loopne", .loopne, .relative, .branch, .relative8)
        add(.one(0xE1), "loope", .loope, .relative, .branch, .relative8)
        add(.one(0xE2), "loop", .loop, .relative, .branch, .relative8)
        add(.one(0xE3), "jcxz", .jcxz, .relative, .branch, .relative8)
        add(.one(0xE8), "call", .call, .relative, .branch, .relativeZ)
        add(.one(0xE9), "jmp", .jmp, .relative, .branch, .relativeZ)
        add(.one(0xEB), "jmp", .jmp, .relative, .branch, .relative8)
        add(.one(0xC2), "ret", .ret, .i, .branch, .unsigned16)
        add(.one(0xC3), "ret", .ret, .none, .branch)
        add(.one(0xFF).reg(2), "call", .callIndirect, .e, .branch, .none, .modrm)
        add(.one(0xFF).reg(4), "jmp", .jmpIndirect, .e, .branch, .none, .modrm)

        group = .farTransfer
        add(.one(0x9A).not64, "call", .callFar, .farPointer, .v, .farPointer)
        add(.one(0xEA).not64, "jmp", .jmpFar, .farPointer, .v, .farPointer)
        add(.one(0xCA), "retf", .retFar, .i, .v, .unsigned16)
        add(.one(0xCB), "retf", .retFar, .none, .v)
        add(.one(0xFF).reg(3).memory, "call", .callFarIndirect, .m, .far, .none, .modrm)
        add(.one(0xFF).reg(5).memory, "jmp", .jmpFarIndirect, .m, .far, .none, .modrm)
        add(.one(0xCF), "iret", .iret, .none, .v)

        group = .software
        add(.one(0xCC), "int3", .int3)
        add(.one(0xCD), "int", .int, .i, .none, .unsigned8)
        add(.one(0xCE).not64, "into", .into)
        add(.one(0xF1), "int1", .int1)
        add(.one(0x62).not64.memory, "bound", .bound, .ge, .v, .none, .modrm)
        add(.x0F(0x0B), "ud2", .ud)
        add(.x0F(0xB9), "ud1", .ud, .none, .none, .none, .modrm)
        add(.x0F(0xFF), "ud0", .ud, .none, .none, .none, .modrm)

        group = .inputOutput
        add(.one(0x6C), "ins", .ins, .none, .b1)
        add(.one(0x6D), "ins", .ins, .none, .z)
        add(.one(0x6E), "outs", .outs, .none, .b1)
        add(.one(0x6F), "outs", .outs, .none, .z)
        add(.one(0xE4), "in", .input, .i, .b1, .unsigned8)
        add(.one(0xE5), "in", .input, .i, .z, .unsigned8)
        add(.one(0xE6), "out", .output, .i, .b1, .unsigned8)
        add(.one(0xE7), "out", .output, .i, .z, .unsigned8)
        add(.one(0xEC), "in", .input, .none, .b1)
        add(.one(0xED), "in", .input, .none, .z)
        add(.one(0xEE), "out", .output, .none, .b1)
        add(.one(0xEF), "out", .output, .none, .z)
    }
}
