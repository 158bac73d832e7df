import CDavit
import Testing
import X86

@testable import SoftEngine

/// String instructions: repetition, direction, overlap, faults and interrupts in the middle.
@Suite struct StringTests {
    @Test(arguments: [[0xA4], [0x66, 0xA5], [0xA5], [0x48, 0xA5]] as [[UInt8]])
    func repeatedMoveCopiesAcrossPages(_ opcode: [UInt8]) throws {
        let machine = try BareMachine()
        for i in 0..<0x3000 as Range<UInt64> {
            machine[0x1_0000 + i, as: UInt8.self] = UInt8(truncatingIfNeeded: i &* 7 ^ i >> 8)
        }
        let size = UInt64(opcode == [0xA4] ? 1 : opcode.first == 0x66 ? 2 : opcode.first == 0x48 ? 8 : 4)
        machine[.RSI] = 0x1_0003
        machine[.RDI] = 0x2_0FF5
        machine[.RCX] = 0x2800 / size
        try machine.run([0xF3] + opcode)
        #expect(machine[.RCX] == 0)
        #expect(machine[.RSI] == 0x1_0003 + 0x2800)
        #expect(machine[.RDI] == 0x2_0FF5 + 0x2800)
        for i in 0..<0x2800 as Range<UInt64> {
            #expect(machine[0x2_0FF5 + i, as: UInt8.self] == machine[0x1_0003 + i, as: UInt8.self])
        }
        #expect(machine[0x2_0FF5 + 0x2800, as: UInt8.self] == 0)
    }

    @Test func overlappingMoveRepeatsAPattern() throws {
        let machine = try BareMachine()
        machine[0x5000, as: UInt16.self] = 0xBBAA
        // The second time the TLB knows the pages.
        for _ in 0..<2 {
            machine[.RSI] = 0x5000
            machine[.RDI] = 0x5002
            machine[.RCX] = 100
            try machine.run([0xF3, 0xA4])  // rep movsb
            for i in 0..<51 as Range<UInt64> { #expect(machine[0x5000 + i * 2, as: UInt16.self] == 0xBBAA) }
        }
    }

    @Test func backwardMove() throws {
        let machine = try BareMachine()
        for i in 0..<8 as Range<UInt64> { machine[0x5000 + i, as: UInt8.self] = UInt8(i + 1) }
        machine.flags = RFLAGS.DF
        machine[.RSI] = 0x5007
        machine[.RDI] = 0x5009
        machine[.RCX] = 8
        try machine.run([0xF3, 0xA4])
        #expect(machine[0x5002, as: UInt64.self] == 0x0807_0605_0403_0201)
        #expect(machine[.RSI] == 0x4FFF)
        #expect(machine[.RDI] == 0x5001)
    }

    @Test func repeatedStoreFills() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x1122_3344
        machine[.RDI] = 0x5FF0
        machine[.RCX] = 64
        try machine.run([0xF3, 0xAB])  // rep stosd
        for i in 0..<64 as Range<UInt64> { #expect(machine[0x5FF0 + i * 4, as: UInt32.self] == 0x1122_3344) }
        #expect(machine[0x5FF0 + 256, as: UInt32.self] == 0)
    }

    @Test func scanFindsAByte() throws {
        let machine = try BareMachine()
        machine[0x6010, as: UInt8.self] = 0x7F
        for _ in 0..<2 {
            machine[.RAX] = 0x7F
            machine[.RDI] = 0x5F00
            machine[.RCX] = 0x1000
            try machine.run([0xF2, 0xAE])  // repne scasb
            #expect(machine[.RDI] == 0x6011)
            #expect(machine[.RCX] == 0x1000 - 0x111)
            #expect(machine.flags & RFLAGS.ZF != 0)
        }
    }

    @Test func compareStopsAtTheDifference() throws {
        let machine = try BareMachine()
        machine[0x5123, as: UInt8.self] = 2
        machine[0x6123, as: UInt8.self] = 3
        for _ in 0..<2 {
            machine[.RSI] = 0x5000
            machine[.RDI] = 0x6000
            machine[.RCX] = 0x1000
            try machine.run([0xF3, 0xA6])  // repe cmpsb
            #expect(machine[.RSI] == 0x5124)
            #expect(machine[.RDI] == 0x6124)
            #expect(machine[.RCX] == 0x1000 - 0x124)
            #expect(machine.arithmeticFlags == RFLAGS.CF | RFLAGS.SF | RFLAGS.AF | RFLAGS.PF)
        }
    }

    @Test func countOfZeroDoesNothing() throws {
        let machine = try BareMachine()
        machine.flags = RFLAGS.arithmetic
        machine[.RSI] = 1 << 63
        machine[.RDI] = 1 << 63
        let before = machine.generalRegisters
        for opcode in [0xA4, 0xA6, 0xAA, 0xAC, 0xAE] as [UInt8] { try machine.run([0xF3, opcode]) }
        #expect(machine.generalRegisters == before)
        #expect(machine.arithmeticFlags == RFLAGS.arithmetic)
    }

    @Test func aFaultKeepsWhatIsDone() throws {
        let machine = try BareMachine(.protected32)
        machine.interpreter.segments[0].limit = 0x5007
        machine[.RDI] = 0x5000
        machine[.RCX] = 5
        machine[.RAX] = 0xEE
        #expect(machine.fault([0xF3, 0xAB]) == .generalProtection)  // rep stosd: the third is beyond ES
        #expect(machine[.RDI] == 0x5008)
        #expect(machine[.RCX] == 3)
        #expect(machine[0x5004, as: UInt32.self] == 0xEE)
        #expect(machine[0x5008, as: UInt32.self] == 0)
    }

    @Test func sixteenBitAddressesWrap() throws {
        let machine = try BareMachine(.real)
        machine[.RDI] = 0xFFFE
        machine[.RCX] = 4
        machine[.RAX] = 0xAB
        try machine.run([0xF3, 0xAA])  // rep stosb
        #expect(machine[0xFFFF, as: UInt8.self] == 0xAB)
        #expect(machine[0, as: UInt8.self] == 0xAB)
        #expect(machine[.RDI] == 2)
    }

    @Test func anInterruptStopsBetweenPages() throws {
        let machine = try BareMachine()
        machine[.RSI] = 0x1_0000
        machine[.RDI] = 0x2_0000
        machine[.RCX] = 0x4000
        davit_cpu_request(machine.interpreter.cpu, DAVIT_EXIT_INTERRUPT.rawValue)
        #expect(try machine.run([0xF3, 0xA4]) == BareMachine.code)
        #expect(machine[.RCX] < 0x4000 && machine[.RCX] >= 0x3000)
        davit_cpu_served(machine.interpreter.cpu, DAVIT_EXIT_INTERRUPT.rawValue)
        #expect(try machine.run([0xF3, 0xA4]) == BareMachine.code + 2)
        #expect(machine[.RCX] == 0)
    }

    @Test func singleStepDoesOneElement() throws {
        let machine = try BareMachine()
        machine.flags = RFLAGS.TF
        machine[.RDI] = 0x5000
        machine[.RCX] = 2
        #expect(try machine.run([0xF3, 0xAA]) == BareMachine.code)
        #expect(machine[.RCX] == 1)
        #expect(try machine.run([0xF3, 0xAA]) == BareMachine.code + 2)
    }

    @Test func portStrings() throws {
        let machine = try BareMachine()
        machine.ports.input = 0x41
        machine[.RDX] = 0x1F0
        machine[.RDI] = 0x5000
        machine[.RCX] = 3
        try machine.run([0xF3, 0x6C])  // rep insb
        #expect(machine[0x5000, as: UInt32.self] == 0x0041_4141)
        machine[.RSI] = 0x5000
        machine[.RCX] = 3
        try machine.run([0xF3, 0x6E])  // rep outsb
        #expect(machine.ports.written.map(\.value) == [0x41, 0x41, 0x41])
    }
}
