import CDavit

/// The opcode table as fuzzers and documents read it: which encodings there are, and what the decoder makes of one.
package enum InstructionCatalog {
    /// One row of the table: the encodings whose key, packed as below, agrees with `match` in the bits of `mask`.
    package struct Row: Sendable {
        package var index: Int
        package var name: String
        package var group: String
        package var map: UInt8
        package var opcode: UInt8
        package var isVEX: Bool
        package var mask: UInt32
        package var match: UInt32
        package var hasModRM: Bool
        package var isLockable: Bool
        /// Needs a SIB byte.
        package var isGather: Bool
        package var isString: Bool
        /// A far pointer stands in the code.
        package var isFarPointer: Bool
        /// Vectors, MMX or x87.
        package var isVector: Bool
        package var leeway: Leeway
        package var fitness: Fitness
    }

    /// What the architecture leaves to the CPU, so that CPUs differ.
    package struct Leeway: OptionSet, Sendable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }

        /// The memory operand is an area of extended or x87 state, whose parts are touched in any order.
        package static let stateArea = Leeway(rawValue: 1)
        /// Has several accesses or checks: which faults first is open (SDM vol. 3, table 6-2, note on priorities in a class).
        package static let faultOrder = Leeway(rawValue: 2)
        /// Some CPUs hold the whole operand against the segment's limit, some only the elements that the mask selects.
        package static let maskedOperand = Leeway(rawValue: 4)
        /// Some CPUs have loaded a part of the registers when a later load faults; others none.
        package static let partialLoads = Leeway(rawValue: 8)
    }

    /// Bits of a row's key above the ModRM byte.
    package enum Key {
        package static let memory = OpcodePattern.Key.memory
        package static let p66 = OpcodePattern.Key.p66
        package static let pF3 = OpcodePattern.Key.pF3
        package static let pF2 = OpcodePattern.Key.pF2
        package static let w = OpcodePattern.Key.w
        package static let l = OpcodePattern.Key.l
        package static let long = OpcodePattern.Key.long
        package static let vvvv = OpcodePattern.Key.vvvv
        package static let rexB = OpcodePattern.Key.rexB
    }

    /// Whether a user process can compare a row with its own CPU.
    package enum Fitness: Sendable {
        case comparable
        /// Its result differs each time or between CPUs (RDTSC, CPUID, RDRAND), or is the hypervisor's.
        case indeterminate
        /// It enters the operating system, or the operating system plays the CPU's part (UMIP).
        case system
    }

    /// All rows for instructions that guests are offered on this host.
    package static func rows(_ bench: InstructionBench) -> [Row] {
        let features = bench.interpreter.decoder.features
        return OpcodeTable.shared.entries.enumerated().dropFirst().compactMap { index, entry in
            guard features.contains(entry.feature) else { return nil }
            return Row(
                index: index, name: entry.name, group: entry.group.name, map: entry.pattern.map,
                opcode: entry.pattern.opcode, isVEX: entry.pattern.isVEX, mask: entry.pattern.mask,
                match: entry.pattern.match, hasModRM: entry.rules.contains(.modrm),
                isLockable: entry.rules.contains(.lockable), isGather: entry.rules.contains(.vsib),
                isString: entry.group == .string, isFarPointer: entry.form == .farPointer,
                isVector: entry.form == .vector,
                leeway: leeway(entry),
                fitness: fitness(entry.operation))
        }
    }

    private static func leeway(_ entry: OpcodeEntry) -> Leeway {
        switch entry.operation {
        case .fxsave, .fxrstor, .xsave, .xsavec, .xsaveopt, .xsaves, .xrstor, .xrstors: .stateArea
        case .cmps, .movs, .bound, .popSegment, .les, .lds, .lss, .lfs, .lgs, .callFar, .callFarIndirect, .jmpFar,
            .jmpFarIndirect, .retFar, .iret:
            .faultOrder
        case .vmaskmov: [.maskedOperand, .faultOrder]
        case .popa: .partialLoads
        default:
            switch entry.size {
            case .environment, .state: .stateArea
            // Written in two pieces.
            case .b10: .faultOrder
            default: []
            }
        }
    }

    private static func fitness(_ operation: Operation) -> Fitness {
        switch operation {
        case .cpuid, .rdtsc, .rdtscp, .rdrand, .rdseed, .rdpid, .rdpmc, .xgetbv, .vmcall, .vmmcall: .indeterminate
        case .syscall, .sysenter, .int1: .system
        case .sgdt, .sidt, .smsw, .sldt, .str: .system
        default: .comparable
        }
    }
}

extension InstructionBench {
    /// What the decoder makes of an encoding.
    package struct Decoded: Sendable {
        /// Index of the row; 0 for an undefined encoding.
        package var row: Int
        package var length: Int
        package var isMemory: Bool
        /// 0-15, 16 for RIP, 0xFF for none.
        package var base: UInt8
        package var index: UInt8
        package var scale: UInt8
        package var segment: UInt8
        package var displacement: Int64
        /// In bytes.
        package var addressSize: UInt8
        package var operandSize: UInt8
        /// Traps between its steps: repeated string instructions and gathers.
        package var hasSteps: Bool
        /// What stands behind it counts too: some CPUs fetch a ModRM byte of UD0 and UD1; some hold the address behind a conditional
        /// branch against the limit even if it is taken; a load of SS holds the trap off until after the next instruction.
        package var reachesBeyond: Bool
        package var hint: Hint
        package var reg: UInt8
        package var rm: UInt8
        /// The index register is a vector.
        package var isGather: Bool
        /// The far pointer is on the stack.
        package var usesStack: Bool
    }

    /// What operand values make an instruction interesting.
    package enum Hint: Sendable {
        case none
        /// BT and its like: a register as a bit offset from the memory operand.
        case bitOffset
        /// rAX is compared with the destination.
        case compareExchange
        case division
        case string
        case stack
        /// RDI, RBX or RAX points at memory.
        case implicitPointer
        /// EDX:EAX chooses state components; the host may have more of them than guests get.
        case stateComponents
        /// An MXCSR in memory.
        case controlWord
        /// FXRSTOR's area.
        case legacyArea
        /// A selector in a register or in memory.
        case selector
        /// An offset with a selector, in memory or on the stack.
        case farPointer
    }

    /// nil where the bytes are not enough, or too many, or an instruction that the host has but the guest is not offered.
    package func decode(_ code: UnsafePointer<UInt8>, available: Int, codeSize: UInt32) -> Decoded? {
        var instruction = Instruction()
        let decoder = interpreter.decoder
        guard decoder.decode(code, available: available, codeSize: codeSize, into: &instruction) == .decoded else {
            return nil
        }
        // Linux's own call, which does things.
        if instruction.operation == .int && instruction.immediate & 0xFF == 0x80 { return nil }
        let isInvalid = instruction.operation == .invalid
        if isInvalid {
            var other = Instruction()
            _ = hostDecoder.decode(code, available: available, codeSize: codeSize, into: &other)
            if other.operation != .invalid { return nil }
            // AMD's VERR and VERW, which also clear buffers, take LOCK.
            if instruction.map == 1 && instruction.opcode == 0 && instruction.prefixes.contains(.lock) { return nil }
        }
        let hint: Hint =
            switch instruction.operation {
            case .bt, .bts, .btr, .btc: .bitOffset
            case .cmpxchg, .cmpxchg8b, .cmpxchg16b: .compareExchange
            case .div, .idiv: .division
            case .movs, .cmps, .stos, .lods, .scas: .string
            case .enter, .leave: .stack
            case .maskmov, .xlat, .clzero: .implicitPointer
            case .xsave, .xsavec, .xsaveopt, .xrstor: .stateComponents
            case .ldmxcsr: .controlWord
            case .fxrstor: .legacyArea
            case .movToSegment, .lar, .lsl, .verr, .verw: .selector
            case .popSegment, .les, .lds, .lss, .lfs, .lgs, .callFarIndirect, .jmpFarIndirect, .retFar, .iret,
                .callFar, .jmpFar:
                .farPointer
            default: .none
            }
        return Decoded(
            row: isInvalid ? 0 : Int(instruction.entry), length: Int(instruction.length),
            isMemory: instruction.isMemory, base: instruction.base, index: instruction.index,
            scale: instruction.scale, segment: instruction.segment, displacement: instruction.displacement,
            addressSize: instruction.addressSize, operandSize: instruction.operandSize,
            hasSteps: hint == .string && !instruction.prefixes.isDisjoint(with: [.rep, .repne])
                || instruction.operation == .gather,
            reachesBeyond: reachesBeyond(instruction), hint: hint,
            reg: instruction.reg, rm: instruction.rm,
            isGather: instruction.operation == .gather, usesStack: hint == .farPointer && !instruction.isMemory)
    }

    private func reachesBeyond(_ instruction: borrowing Instruction) -> Bool {
        let map = instruction.map
        let opcode = instruction.opcode
        return switch instruction.operation {
        // With a prefix that makes them undefined in another way too.
        case .ud, .invalid: (map, opcode) == (1, 0xB9) || (map, opcode) == (1, 0xFF)
        case _ where instruction.form == .relative: true
        case .popSegment, .movToSegment: instruction.reg == UInt8(DAVIT_SS.rawValue)
        default: false
        }
    }
}
