import Testing

@testable import SoftEngine

/// Small cases for the rules that are easy to get wrong; `DecoderObjdumpTests` covers the breadth.
@Suite struct DecoderTests {
    let amd = Decoder(features: .all, behaviour: .amd)
    let intel = Decoder(features: .all, behaviour: [])

    private func decode(_ bytes: [UInt8], _ codeSize: UInt32 = 8, with decoder: Decoder? = nil) -> Instruction {
        var instruction = Instruction()
        let padded = bytes + Array(repeating: 0x90, count: 15)
        let outcome = padded.withUnsafeBufferPointer {
            (decoder ?? amd).decode($0.baseAddress!, available: $0.count, codeSize: codeSize, into: &instruction)
        }
        #expect(outcome == .decoded)
        return instruction
    }

    private func outcome(_ bytes: [UInt8], _ codeSize: UInt32 = 8) -> DecodeOutcome {
        var instruction = Instruction()
        return bytes.withUnsafeBufferPointer {
            amd.decode($0.baseAddress!, available: $0.count, codeSize: codeSize, into: &instruction)
        }
    }

    private func isInvalid(_ bytes: [UInt8], _ codeSize: UInt32 = 8) -> Bool {
        decode(bytes, codeSize).operation == .invalid
    }

    // MARK: Length

    @Test func asksForMoreBytesAtTheEndOfAPage() {
        let addRIPRelative: [UInt8] = [0x48, 0x81, 0x05, 1, 2, 3, 4, 5, 6, 7, 8]
        for count in 0..<addRIPRelative.count {
            #expect(outcome(Array(addRIPRelative.prefix(count))) == .needsMoreBytes)
        }
        #expect(outcome(addRIPRelative) == .decoded)
    }

    @Test func fifteenBytesAreTheLimit() {
        #expect(outcome(Array(repeating: 0x66, count: 14) + [0x90]) == .decoded)
        #expect(outcome(Array(repeating: 0x66, count: 15) + [0x90]) == .tooLong)
        #expect(outcome(Array(repeating: 0x66, count: 11) + [0x81, 0xC0, 1, 2]) == .decoded)
        // The immediate is the sixteenth byte.
        #expect(outcome(Array(repeating: 0x66, count: 12) + [0x81, 0xC0, 1, 2]) == .tooLong)
    }

    // MARK: Prefixes

    @Test func onlyARexRightBeforeTheOpcodeCounts() {
        #expect(decode([0x48, 0x66, 0x01, 0xC0]).operandSize == 2)
        #expect(decode([0x66, 0x48, 0x01, 0xC0]).operandSize == 8)
        #expect(decode([0x48, 0x41, 0x01, 0xC0]).operandSize == 4)
        #expect(decode([0x48, 0x41, 0x01, 0xC0]).rm == 8)
        #expect(decode([0x48, 0x2E, 0x88, 0xE0]).prefixes.contains(.rex) == false)
    }

    @Test func theLastOfF2AndF3Wins() {
        #expect(decode([0xF2, 0xF3, 0xA4]).prefixes.isSuperset(of: .rep))
        #expect(decode([0xF2, 0xF3, 0xA4]).prefixes.isDisjoint(with: .repne))
        #expect(decode([0xF3, 0xF2, 0x0F, 0x10, 0xC1]).prefixes.contains(.repne))
    }

    @Test func f2AndF3ComeBefore66AsMandatoryPrefixes() {
        let movss = decode([0x66, 0xF3, 0x0F, 0x10, 0x00])
        #expect(amd.entry(of: movss).pointee.name == "movss")
        #expect(movss.prefixes.contains(.operandSize) == false)
        #expect(movss.operandSize == 4)
        // CRC32 wants both.
        let crc32 = decode([0x66, 0xF2, 0x0F, 0x38, 0xF1, 0xC0])
        #expect(crc32.operation == .crc32 && crc32.operandSize == 2)
    }

    @Test func segmentOverridesIn64BitModeAreFSAndGSOnly() {
        #expect(decode([0x2E, 0x8B, 0x00]).segment == 3)
        #expect(decode([0x64, 0x2E, 0x8B, 0x00]).segment == 4)
        #expect(decode([0x65, 0x8B, 0x04, 0x24]).segment == 5)
        #expect(decode([0x64, 0x2E, 0x8B, 0x00], 4).segment == 1)
    }

    @Test func lockNeedsALockableInstructionAndMemory() {
        #expect(decode([0xF0, 0x01, 0x00]).operation == .add)
        #expect(isInvalid([0xF0, 0x01, 0xC0]))
        #expect(isInvalid([0xF0, 0x03, 0x00]))
        #expect(isInvalid([0xF0, 0x39, 0x00]))
        #expect(isInvalid([0xF0, 0x89, 0x00]))
        #expect(isInvalid([0xF0, 0x0F, 0xA3, 0x00]))
        #expect(decode([0xF0, 0x0F, 0xAB, 0x00]).operation == .bts)
        #expect(decode([0xF0, 0x0F, 0xC7, 0x08]).operation == .cmpxchg8b)
        #expect(decode([0xF0, 0x48, 0x0F, 0xC7, 0x08]).operation == .cmpxchg16b)
        #expect(isInvalid([0xF0, 0x0F, 0x58, 0xC0]))
        #expect(decode([0xF0, 0x89, 0x00]).length == 3)
    }

    @Test func lockMovCR0IsCR8WhereTheCPUSaysSo() {
        let cr8 = decode([0xF0, 0x0F, 0x20, 0xC0], 4)
        #expect(cr8.operation == .movFromCR && cr8.reg == 8)
        var features = InstructionFeatures.all
        features.remove(.cr8Legacy)
        let plain = Decoder(features: features, behaviour: .amd)
        #expect(decode([0xF0, 0x0F, 0x20, 0xC0], 4, with: plain).operation == .invalid)
    }

    // MARK: Operand sizes

    @Test func stackOperationsAre64BitIn64BitMode() {
        #expect(decode([0x50]).operandSize == 8)
        #expect(decode([0x66, 0x50]).operandSize == 2)
        #expect(decode([0x41, 0x57]).reg == 15)
        #expect(decode([0x66, 0x50], 2).operandSize == 4)
        #expect(decode([0x68, 0xFF, 0xFF, 0xFF, 0xFF]).immediate == -1)
        #expect(decode([0x66, 0x68, 0xFE, 0xFF]).length == 4)
    }

    @Test func onlyAMDHonours66OnNearBranches() {
        let call: [UInt8] = [0x66, 0xE8, 1, 2, 3, 4]
        #expect(decode(call).length == 4)
        #expect(decode(call).operandSize == 2)
        #expect(decode(call, with: intel).length == 6)
        #expect(decode(call, with: intel).operandSize == 8)
        #expect(decode(call, 4, with: intel).length == 4)
        #expect(decode([0x66, 0x48, 0xE8, 1, 2, 3, 4]).length == 7)
    }

    @Test func movWithA64BitImmediate() {
        let mov = decode([0x49, 0xBB, 1, 2, 3, 4, 5, 6, 7, 0x88])
        #expect(mov.length == 10 && mov.reg == 11)
        #expect(mov.immediate == Int64(bitPattern: 0x8807_0605_0403_0201))
        #expect(decode([0xB8, 0xFF, 0xFF, 0xFF, 0xFF]).immediate == 0xFFFF_FFFF)
    }

    @Test func absoluteOffsetsHaveTheAddressSize() {
        #expect(decode([0xA1, 1, 2, 3, 4, 5, 6, 7, 8]).length == 9)
        #expect(decode([0x67, 0xA1, 1, 2, 3, 4]).displacement == 0x0403_0201)
        #expect(decode([0xA0, 0xFE, 0xFF], 2).displacement == 0xFFFE)
    }

    @Test func immediatesAreSignExtendedWhereTheInstructionDoes() {
        #expect(decode([0x83, 0xC0, 0xFF]).immediate == -1)
        #expect(decode([0x80, 0xC0, 0xFF]).immediate == 0xFF)
        #expect(decode([0xC1, 0xE0, 0xFF]).immediate == 0xFF)
        #expect(decode([0xCD, 0x80]).immediate == 0x80)
        #expect(decode([0xC2, 0xFF, 0xFF]).immediate == 0xFFFF)
    }

    @Test func enterAndFarPointers() {
        let enter = decode([0xC8, 0x10, 0x20, 0x03])
        #expect(enter.immediate == 0x2010 && enter.immediate2 == 3)
        let jump = decode([0xEA, 1, 2, 3, 4, 5, 6], 4)
        #expect(jump.operation == .jmpFar && jump.immediate == 0x0403_0201 && jump.immediate2 == 0x0605)
        #expect(decode([0xEA, 1, 2, 3, 4], 2).length == 5)
        #expect(isInvalid([0xEA, 1, 2, 3, 4, 5, 6]))
    }

    // MARK: Memory operands

    @Test func ripRelativeOnlyIn64BitMode() {
        let relative = decode([0x8B, 0x05, 0xFC, 0xFF, 0xFF, 0xFF])
        #expect(relative.base == Instruction.ripRegister && relative.displacement == -4 && relative.length == 6)
        #expect(decode([0x8B, 0x05, 0, 0, 0, 0x80], 4).base == Instruction.noRegister)
    }

    @Test func sibWithoutBaseOrIndex() {
        let noBase = decode([0x8B, 0x04, 0xCD, 1, 0, 0, 0])
        #expect(noBase.base == Instruction.noRegister && noBase.index == 1 && noBase.scale == 3)
        let noIndex = decode([0x8B, 0x04, 0x24])
        #expect(noIndex.base == 4 && noIndex.index == Instruction.noRegister && noIndex.segment == 2)
        // R12 as index and R13 as base are registers like any other.
        let r12 = decode([0x42, 0x8B, 0x04, 0x20])
        #expect(r12.index == 12)
        let r13 = decode([0x41, 0x8B, 0x45, 0x00])
        #expect(r13.base == 13 && r13.segment == 3)
    }

    @Test func basePointersUseTheStackSegment() {
        #expect(decode([0x8B, 0x45, 0x00]).segment == 2)
        #expect(decode([0x8B, 0x04, 0x2C], 4).segment == 2)
        #expect(decode([0x8B, 0x04, 0x68], 4).segment == 3)
        #expect(decode([0x3E, 0x8B, 0x45, 0x00], 4).segment == 3)
    }

    @Test func sixteenBitAddressing() {
        let bpSI = decode([0x8B, 0x42, 0xFE], 2)
        #expect(bpSI.base == 5 && bpSI.index == 6 && bpSI.displacement == -2 && bpSI.segment == 2)
        let absolute = decode([0x8B, 0x06, 0x34, 0x12], 2)
        #expect(absolute.base == Instruction.noRegister && absolute.displacement == 0x1234 && absolute.segment == 3)
        let bx = decode([0x67, 0x8B, 0x07], 4)
        #expect(bx.base == 3 && bx.index == Instruction.noRegister && bx.addressSize == 2)
        #expect(decode([0x67, 0x8B, 0x04, 0x24], 2).addressSize == 4)
    }

    // MARK: Opcodes that change their meaning

    @Test func theManyFacesOf90() {
        #expect(decode([0x90]).operation == .nop)
        #expect(decode([0xF3, 0x90]).operation == .pause)
        #expect(decode([0x48, 0x90]).operation == .nop)
        let exchange = decode([0x49, 0x90])
        #expect(exchange.operation == .xchg && exchange.reg == 8)
    }

    @Test func hintsAndShadowStackInstructionsAreNops() {
        #expect(decode([0xF3, 0x0F, 0x1E, 0xFA]).operation == .nop)
        #expect(decode([0xF3, 0x48, 0x0F, 0x1E, 0xC8]).operation == .nop)
        #expect(decode([0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0]).length == 10)
        #expect(decode([0x0F, 0x18, 0x08]).operation == .prefetch)
    }

    @Test func tzcntAndLzcntAreBsfAndBsrOnOlderCPUs() {
        #expect(decode([0xF3, 0x0F, 0xBC, 0xC1]).operation == .tzcnt)
        #expect(decode([0xF3, 0x0F, 0xBD, 0xC1]).operation == .lzcnt)
        #expect(decode([0xF2, 0x0F, 0xBD, 0xC1]).operation == .bsr)
        let old = Decoder(features: .none, behaviour: [])
        #expect(decode([0xF3, 0x0F, 0xBC, 0xC1], with: old).operation == .bsf)
        #expect(decode([0xF3, 0x0F, 0xBD, 0xC1], with: old).operation == .bsr)
        #expect(decode([0xF3, 0x0F, 0xB8, 0xC1], with: old).operation == .invalid)
    }

    @Test func movbeAndCRC32ShareOpcodes() {
        #expect(decode([0x0F, 0x38, 0xF0, 0x00]).operation == .movbe)
        #expect(decode([0x66, 0x0F, 0x38, 0xF1, 0x00]).form == .eg)
        #expect(isInvalid([0x0F, 0x38, 0xF0, 0xC0]))
        #expect(decode([0xF2, 0x0F, 0x38, 0xF0, 0xC0]).operandSize == 1)
        #expect(decode([0xF2, 0x48, 0x0F, 0x38, 0xF1, 0xC0]).operandSize == 8)
    }

    @Test func groupNine() {
        #expect(decode([0x0F, 0xC7, 0xF0]).operation == .rdrand)
        #expect(decode([0x66, 0x0F, 0xC7, 0xF8]).operation == .rdseed)
        #expect(decode([0xF3, 0x0F, 0xC7, 0xF8]).operation == .rdpid)
        #expect(decode([0x0F, 0xC7, 0x21]).operation == .xsavec)
        #expect(isInvalid([0x0F, 0xC7, 0xC8]))
    }

    @Test func vexIsLESAndLDSOutside64BitMode() {
        #expect(decode([0xC4, 0x00], 4).operation == .les)
        #expect(decode([0xC5, 0x00], 2).operation == .lds)
        #expect(amd.entry(of: decode([0xC5, 0xF0, 0x58, 0xC2], 4)).pointee.name == "vaddps")
        #expect(isInvalid([0xC4, 0x00, 0x00]))
        #expect(decode([0x62, 0x00], 4).operation == .bound)
        #expect(isInvalid([0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC2], 4))
        #expect(isInvalid([0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC2]))
        #expect(isInvalid([0x8F, 0xE8, 0x78, 0xC0, 0xC0, 0x01]))
    }

    @Test func opcodesThatLongModeDropped() {
        for opcode: UInt8 in [
            0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F, 0x60, 0x61, 0x82, 0xCE, 0xD4, 0xD6,
        ] {
            #expect(isInvalid([opcode, 0, 0, 0]), "\(String(opcode, radix: 16))")
            #expect(!isInvalid([opcode, 0, 0, 0], 4), "\(String(opcode, radix: 16))")
        }
        #expect(decode([0x63, 0xC0]).operation == .movsxd)
        #expect(decode([0x63, 0xC0], 4).operation == .arpl)
        #expect(decode([0x40], 4).operation == .inc)
    }

    @Test func controlAndDebugRegisters() {
        // ModRM.mod is ignored: no displacement, no SIB.
        let fromCR3 = decode([0x0F, 0x20, 0x1C])
        #expect(fromCR3.operation == .movFromCR && fromCR3.reg == 3 && fromCR3.rm == 4 && fromCR3.length == 3)
        #expect(decode([0x44, 0x0F, 0x22, 0xC0]).reg == 8)
        #expect(isInvalid([0x0F, 0x20, 0xC8]))
        #expect(isInvalid([0x44, 0x0F, 0x21, 0xC0]))
        #expect(decode([0x0F, 0x23, 0xF8]).reg == 7)
    }

    @Test func segmentRegisters() {
        #expect(isInvalid([0x8E, 0xC8]))
        #expect(isInvalid([0x8E, 0xF0]))
        #expect(decode([0x8C, 0xC8]).reg == 1)
        #expect(isInvalid([0x8C, 0xF0]))
        #expect(decode([0x0F, 0xA8]).reg == 5)
        #expect(decode([0x16], 4).reg == 2)
    }

    // MARK: Vectors

    @Test func shapeOfAnSSELoadStoreAndItsVEXForm() {
        let addps = amd.shape(of: decode([0x0F, 0x58, 0x00]))
        #expect(addps.access == [.readsReg, .writesReg, .readsRM, .aligned])
        let vaddps = decode([0xC5, 0xF4, 0x58, 0x00])
        #expect(amd.shape(of: vaddps).access == [.writesReg, .readsVVVV, .readsRM])
        #expect(vaddps.operandSize == 32 && vaddps.vvvv == 1 && vaddps.prefixes.contains(.l))
        let movaps = decode([0x0F, 0x29, 0x00])
        #expect(amd.shape(of: movaps).access == [.readsReg, .writesRM, .aligned])
        #expect(amd.shape(of: decode([0x0F, 0x11, 0x00])).access.contains(.aligned) == false)
        #expect(amd.shape(of: decode([0xC5, 0xFC, 0x29, 0x00])).access.contains(.aligned))
    }

    @Test func mmxRegistersKnowNoRex() {
        let paddb = decode([0x4D, 0x0F, 0xFC, 0xC1])
        #expect(paddb.reg == 0 && paddb.rm == 1)
        let cvtpi2ps = decode([0x45, 0x0F, 0x2A, 0xC1])
        #expect(cvtpi2ps.reg == 8 && cvtpi2ps.rm == 1)
    }

    @Test func vexFieldsThatMustBeOnes() {
        // VMOVAPS has no second source.
        #expect(!isInvalid([0xC5, 0xF8, 0x28, 0xC1]))
        #expect(isInvalid([0xC5, 0xF0, 0x28, 0xC1]))
        // VPERMQ wants L and W.
        #expect(!isInvalid([0xC4, 0xE3, 0xFD, 0x00, 0xC1, 0x01]))
        #expect(isInvalid([0xC4, 0xE3, 0xF9, 0x00, 0xC1, 0x01]))
        #expect(isInvalid([0xC4, 0xE3, 0x7D, 0x00, 0xC1, 0x01]))
        // No legacy prefix goes with VEX.
        for prefix: UInt8 in [0x66, 0xF2, 0xF3, 0xF0, 0x48] {
            #expect(isInvalid([prefix, 0xC5, 0xF8, 0x28, 0xC1]))
        }
    }

    @Test func gathersNeedDistinctRegistersAndASIB() {
        let gather = decode([0xC4, 0xE2, 0x69, 0x90, 0x04, 0x20])
        #expect(gather.operation == .gather && gather.index == 4 && gather.vvvv == 2 && gather.operandSize == 4)
        #expect(isInvalid([0xC4, 0xE2, 0x79, 0x90, 0x04, 0x20]))
        #expect(isInvalid([0xC4, 0xE2, 0x59, 0x90, 0x04, 0x20]))
        #expect(isInvalid([0xC4, 0xE2, 0x69, 0x90, 0x00]))
    }

    @Test func vexWOutside64BitModeDoesNotWidenGeneralRegisters() {
        let move: [UInt8] = [0xC4, 0xE1, 0xF9, 0x6E, 0x00]
        #expect(decode(move).operandSize == 8)
        #expect(decode(move, 4).operandSize == 4)
        #expect(decode(move, 4).prefixes.contains(.w) == false)
        let fma: [UInt8] = [0xC4, 0xE2, 0xF1, 0x98, 0xC2]
        #expect(amd.entry(of: decode(fma, 4)).pointee.name == "vfmadd132pd")
    }

    @Test func x87SizesFollowTheOperandSize() {
        #expect(decode([0xD9, 0x30]).operandSize == 28)
        #expect(decode([0x66, 0xD9, 0x30]).operandSize == 14)
        #expect(decode([0xDD, 0x30], 2).operandSize == 94)
        #expect(decode([0xDB, 0x28]).operandSize == 10)
        #expect(amd.shape(of: decode([0xDF, 0xE0])).access == [.writesAX, .nonWaiting])
    }

    @Test func whatTheCPULacksIsUndefined() {
        var features = InstructionFeatures.all
        features.remove(.avx2)
        let plain = Decoder(features: features, behaviour: .amd)
        #expect(decode([0xC5, 0xF1, 0xFC, 0xC2], with: plain).operation == .vector)
        #expect(decode([0xC5, 0xF5, 0xFC, 0xC2], with: plain).operation == .invalid)
        #expect(decode([0xC5, 0xF4, 0x58, 0xC2], with: plain).operation == .vector)
    }
}
