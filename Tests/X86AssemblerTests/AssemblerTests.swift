import Testing
import X86Assembler

@Suite struct AssemblerTests {
    private func encode(_ emit: (inout Assembler) -> Void) -> [UInt8] {
        withUnsafeTemporaryAllocation(byteCount: 64, alignment: 16) { buffer in
            var assembler = Assembler(buffer: buffer, code: 0x1000)
            emit(&assembler)
            #expect(!assembler.overflowed)
            return [UInt8](buffer.prefix(assembler.count))
        }
    }

    @Test func operandsThatNeedASpecialModRM() {
        #expect(encode { $0.load(.rax, .memory(.rsp, 8), size: 8) } == [0x48, 0x8B, 0x44, 0x24, 0x08])
        #expect(encode { $0.load(.rax, .memory(.rbp), size: 4) } == [0x8B, 0x45, 0x00])
        #expect(encode { $0.load(.r9, .memory(.r12), size: 8) } == [0x4D, 0x8B, 0x0C, 0x24])
        #expect(encode { $0.load(.rcx, .memory(.r13, 0x100), size: 8) } == [0x49, 0x8B, 0x8D, 0, 1, 0, 0])
        #expect(
            encode { $0.store(.memory(.rdi, index: .r10, scale: 3, -1), .rsi, size: 1) }
                == [0x42, 0x88, 0x74, 0xD7, 0xFF])
    }

    @Test func constantsTakeTheShortestForm() {
        #expect(encode { $0.move(.r10, UInt64(1)) } == [0x41, 0xBA, 1, 0, 0, 0])
        #expect(encode { $0.move(.rax, UInt64(bitPattern: -2)) } == [0x48, 0xC7, 0xC0, 0xFE, 0xFF, 0xFF, 0xFF])
        #expect(encode { $0.move(.rax, 0x1_0000_0000) } == [0x48, 0xB8, 0, 0, 0, 0, 1, 0, 0, 0])
    }

    @Test func vexInstructions() {
        #expect(encode { $0.rorx(.rax, .register(.rdx), count: 12) } == [0xC4, 0xE3, 0xFB, 0xF0, 0xC2, 0x0C])
        #expect(encode { $0.loadUpperHalf(1, .memory(.rdi, 416)) } == [0xC4, 0xE3, 0x75, 0x18, 0x8F, 0xA0, 1, 0, 0, 1])
    }

    @Test func jumpsForwardAndBackMeetTheirLabel() {
        let code = encode { assembler in
            var label = Label()
            assembler.jump(.equal, &label)
            assembler.jump(&label)
            assembler.bind(&label)
            assembler.jump(&label)
        }
        #expect(code == [0x0F, 0x84, 5, 0, 0, 0, 0xE9, 0, 0, 0, 0, 0xE9, 0xFB, 0xFF, 0xFF, 0xFF])
    }

    @Test func aFullBufferOverflowsAndIsNotWrittenPast() {
        withUnsafeTemporaryAllocation(byteCount: 8, alignment: 16) { memory in
            memory.initializeMemory(as: UInt8.self, repeating: 0x5A)
            let buffer = UnsafeMutableRawBufferPointer(rebasing: memory[..<4])
            var assembler = Assembler(buffer: buffer, code: 0)
            assembler.move(.rax, UInt64(7))
            #expect(assembler.overflowed)
            #expect(memory[4...].allSatisfy { $0 == 0x5A })
        }
    }
}

@Suite struct CodePoolTests {
    @Test func codeWrittenThroughOneMappingRunsInTheOther() throws {
        let pool = try CodePool(segmentSize: 4096, segmentCount: 2)
        var segment = pool.emptySegment(1)
        let address = try #require(
            segment.append { assembler in
                assembler.lea(.rax, .memory(.rdi, index: .rsi, scale: 1, 5))
                assembler.ret()
            })
        #expect(pool.addresses.contains(address))
        let function = unsafeBitCast(address, to: (@convention(c) (UInt64, UInt64) -> UInt64).self)
        #expect(function(100, 10) == 125)
    }

    @Test func aPatchedJumpLeadsElsewhere() throws {
        let pool = try CodePool(segmentSize: 4096, segmentCount: 1)
        var segment = pool.emptySegment(0)
        let one = try #require(
            segment.append {
                $0.move(.rax, UInt64(1))
                $0.ret()
            })
        let two = try #require(
            segment.append {
                $0.move(.rax, UInt64(2))
                $0.ret()
            })
        var place = 0
        let entry = try #require(segment.append { place = $0.jump(to: one) })
        let function = unsafeBitCast(entry, to: (@convention(c) () -> UInt64).self)
        #expect(function() == 1)
        pool.patchJump(rel32At: entry + UInt(place), to: two)
        #expect(function() == 2)
    }

    @Test func aFullSegmentTakesNothingMore() throws {
        let pool = try CodePool(segmentSize: 4096, segmentCount: 1)
        var segment = pool.emptySegment(0)
        let whole = segment.append { assembler in for _ in 0..<4096 { assembler.byte(0xCC) } }
        #expect(whole != nil)
        let more = segment.append { $0.ret() }
        #expect(more == nil)
    }
}
