import InstructionOracle
import Testing

/// An encoding that the fuzzer found to differ once, run again in many states.
struct Regression: CustomTestStringConvertible {
    let name: String
    let code: [UInt8]
    var mode = CodeMode.long64

    var testDescription: String { name }

    init(_ name: String, _ code: [UInt8], _ mode: CodeMode = .long64) {
        self.name = name
        self.code = code
        self.mode = mode
    }

    static let all = [
        Regression("SHA operands need no alignment on AMD's CPUs", [0x0F, 0x38, 0xCA, 0x03]),
        Regression("a gather that faults leaves the masks to come alone", [0xC4, 0xE2, 0xD1, 0x91, 0x24, 0x03]),
        Regression("a gather with four-byte indices and eight-byte elements", [0xC4, 0xE2, 0xE5, 0x90, 0x0C, 0x13]),
        Regression("EMMS knows no prefix", [0xF3, 0x0F, 0x77]),
        Regression("REX.W makes FRSTOR's area the long one, whatever 66 says", [0x66, 0x48, 0xDD, 0x20]),
        Regression("FXRSTOR cuts pointers to the bits that the CPU has", [0x48, 0x0F, 0xAE, 0x08]),
        Regression("misalignment comes before a wrong address in the stack segment", [0x66, 0x0F, 0xF2, 0x45, 0x00]),
        Regression("VMASKMOV looks only at addresses that its mask selects", [0xC4, 0xE2, 0x61, 0x2F, 0x00]),
        Regression("MASKMOVQ enters MMX mode even if it faults", [0x0F, 0xF7, 0xC9]),
        Regression("MASKMOVDQU wants its first page, whatever the mask", [0x66, 0x0F, 0xF7, 0xC2]),
        Regression("CVTPI2PD from memory leaves x87 state alone", [0x66, 0x0F, 0x2A, 0x28]),
        Regression("MXCSR.MM allows misaligned operands, of CVTTPD2PI too", [0x66, 0x0F, 0x2C, 0x20]),
        Regression("MXCSR.MM does not concern moves", [0xC5, 0xFD, 0x6F, 0x00]),
        Regression("MXCSR.MM does not concern stores", [0xC5, 0xF9, 0xE7, 0x07]),
        Regression("XSAVE's first byte faults first", [0x0F, 0xAE, 0x23]),
        Regression("XRSTOR judges the header before it loads", [0x0F, 0xAE, 0x2B]),
        Regression(
            "the highest bit of a register in the immediate counts in 64-bit mode",
            [0xC4, 0xE3, 0x51, 0x4A, 0xD6, 0xB2]),
        Regression(
            "the highest bit of a register in the immediate is ignored elsewhere",
            [0xC4, 0xE3, 0x51, 0x4A, 0xD6, 0xB2], .flat32),
        Regression("256 bits are checked for alignment to 128", [0xC5, 0xFC, 0x10, 0x03]),
        Regression("FNSTENV's short form is checked for alignment to words", [0x66, 0xD9, 0x33], .flat32),
        Regression("an x87 store through an expand-down segment", [0x64, 0xDD, 0x5B, 0x08], .segmented32),
        Regression("LDMXCSR with reserved bits", [0x0F, 0xAE, 0x13]),
        Regression("an exception that SSE raises unmasked leaves the destination", [0x0F, 0x5E, 0xC1]),
        Regression("PCMPESTRI with 64-bit lengths", [0x66, 0x48, 0x0F, 0x3A, 0x61, 0xCA, 0x0C]),
        Regression("FCMOVcc reads the guest's flags", [0xDA, 0xC1]),
        Regression("FCOMI writes the guest's flags", [0xDB, 0xF1]),
        Regression(
            "the limit and the whole of a masked operand", [0xC4, 0xE2, 0x41, 0x2F, 0x84, 0x14, 0xD6], .segmented16),
        Regression(
            "the elements of a masked operand fault in any order", [0xC4, 0xE2, 0xE9, 0x8E, 0x01], .segmented16),
        Regression("the operands of CMPS fault in any order", [0x67, 0xA6], .segmented32),
        Regression("the halves of a far pointer fault in any order", [0x0F, 0xB4, 0x23], .segmented32),
        Regression("POPA that faults may have popped some", [0x61], .segmented32),
        Regression("POP FS wants its slot aligned", [0x0F, 0xA1]),
        Regression(
            "32 bytes need the alignment of 16 also where the TLB does not know the page", [0xC5, 0xFE, 0x7F, 0x07]),
        Regression("MOV SS holds the trap off", [0x8E, 0x17], .segmented32),
        Regression("POP SS holds the trap off", [0x17], .segmented32),
        Regression("CLZERO zeroes a line, where there is CLZERO", [0x0F, 0x01, 0xFC]),
        Regression("CLZERO by a 16-bit address in GS", [0x65, 0x67, 0x0F, 0x01, 0xFC], .segmented32),
        Regression("CLZERO knows no REP", [0xF3, 0x0F, 0x01, 0xFC]),
        Regression("SYSEXIT looks at the privilege level first", [0x0F, 0x35]),
        Regression("DR4 is DR6, for level 0 alone", [0x0F, 0x21, 0x62]),
        Regression("UD1 with LOCK is undefined too", [0xF0, 0x0F, 0xB9, 0x23]),
        Regression("a far CALL with REX.W pushes 64 bits", [0x48, 0xFF, 0x1F]),
        Regression(
            "a far CALL into 64-bit code from a segment with a base", [0x9A, 0x1A, 0x0E, 0, 0, 0x33, 0], .segmented32),
        Regression("a far CALL into 32-bit code from a stack above 4 GiB", [0x67, 0xFF, 0x1C, 0xF4]),
        Regression("LOOP at the segment's end", [0xE2, 0xFF], .segmented16),
        Regression("Jcc at the segment's end", [0x72, 0xE3], .segmented32),
        Regression("the pieces of FBSTP fault in any order", [0xDF, 0x33], .segmented32),
        Regression("a far RET's pops and checks fault in any order", [0x66, 0xCA, 0xD5, 0xEB], .segmented32),
        Regression("IRET's pops fault in any order", [0x48, 0xCF]),
        Regression("INT3 enters its handler", [0xCC]),
        Regression("INTO enters its handler, or does not", [0xCE], .flat32),
        Regression("INT with a gate for level 0 alone", [0xCD, 0x20]),
        Regression("the bounds of BOUND fault in any order", [0x62, 0x23], .segmented32),
    ]
}
