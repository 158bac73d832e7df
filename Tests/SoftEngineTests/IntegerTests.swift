import CDavit
import Testing
import X86

@testable import SoftEngine

/// Arithmetic, moves, branches and flags: the corners, case by case. Breadth comes from the comparison with the host CPU.
@Suite struct IntegerTests {
    // MARK: Arithmetic

    @Test func addSetsAllFlags() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x7FFF_FFFF
        machine[.RBX] = 1
        try machine.run([0x01, 0xD8])  // add eax, ebx
        #expect(machine[.RAX] == 0x8000_0000)
        #expect(machine.arithmeticFlags == RFLAGS.OF | RFLAGS.SF | RFLAGS.AF | RFLAGS.PF)
    }

    @Test func narrowWritesKeepTheRestAndWideOnesClearIt() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x1122_3344_5566_7788
        try machine.run([0x04, 0xFF])  // add al, 0xFF
        #expect(machine[.RAX] == 0x1122_3344_5566_7787)
        try machine.run([0x80, 0xC4, 0x01])  // add ah, 1
        #expect(machine[.RAX] == 0x1122_3344_5566_7887)
        try machine.run([0x66, 0x05, 0x00, 0x90])  // add ax, 0x9000
        #expect(machine[.RAX] == 0x1122_3344_5566_0887)
        #expect(machine.flags & RFLAGS.CF != 0)
        try machine.run([0x83, 0xC0, 0xFF])  // add eax, -1
        #expect(machine[.RAX] == 0x5566_0886)
    }

    @Test func incrementKeepsCarry() throws {
        let machine = try BareMachine(.protected32)
        machine[.RCX] = 0xFFFF_FFFF
        machine.flags = RFLAGS.CF
        try machine.run([0x41])  // inc ecx
        #expect(machine[.RCX] == 0)
        #expect(machine.arithmeticFlags == RFLAGS.CF | RFLAGS.ZF | RFLAGS.PF | RFLAGS.AF)
    }

    @Test func addWithCarryReadsIt() throws {
        let machine = try BareMachine()
        machine[.RAX] = UInt64.max
        machine.flags = RFLAGS.CF
        try machine.run([0x48, 0x83, 0xD0, 0x00])  // adc rax, 0
        #expect(machine[.RAX] == 0)
        #expect(machine.flags & RFLAGS.CF != 0)
    }

    @Test func memoryDestination() throws {
        let machine = try BareMachine()
        machine[.RBX] = BareMachine.data
        machine[BareMachine.data + 8, as: UInt32.self] = 40
        try machine.run([0x83, 0x43, 0x08, 0x02])  // add dword [rbx+8], 2
        #expect(machine[BareMachine.data + 8, as: UInt32.self] == 42)
    }

    @Test func lockedAddAcrossACacheLine() throws {
        let machine = try BareMachine()
        machine[.RBX] = BareMachine.data + 62
        machine[BareMachine.data + 62, as: UInt32.self] = 40
        try machine.run([0xF0, 0x83, 0x03, 0x02])  // lock add dword [rbx], 2
        #expect(machine[BareMachine.data + 62, as: UInt32.self] == 42)
    }

    @Test func divisionByZeroAndOverflowFault() throws {
        let machine = try BareMachine()
        machine[.RAX] = 5
        machine[.RDX] = 1
        machine[.RCX] = 0
        let before = machine.generalRegisters
        #expect(machine.fault([0xF7, 0xF1]) == .divideError)  // div ecx
        machine[.RCX] = 1
        #expect(machine.fault([0xF7, 0xF1]) == .divideError)
        machine[.RCX] = 0
        #expect(machine.fault([0xF7, 0xF9]) == .divideError)  // idiv ecx
        #expect(machine.generalRegisters == before)
    }

    @Test(
        arguments: [
            // Dividend high, low, divisor: quotient and remainder, or none.
            (UInt64.max, UInt64(bitPattern: -7), UInt64(2), (UInt64(bitPattern: -3), UInt64(bitPattern: -1))),
            (UInt64.max, 1 << 63, UInt64.max, nil),
            (0, 1 << 63, UInt64.max, (1 << 63, 0)),
            (UInt64.max, (1 << 63) - 1, 1, nil),
            (0, 1 << 63, 1, nil),
            (1 << 63, 0, 1 << 63, nil),
            (UInt64.max << 62, 0, 1 << 63, nil),
            (1 << 62, 0, 1 << 63, (1 << 63, 0)),
            ((1 << 62) + 1, 0, 1 << 63, nil),
        ] as [(UInt64, UInt64, UInt64, (UInt64, UInt64)?)])
    func signedDivisionAtItsLimits(_ high: UInt64, _ low: UInt64, _ divisor: UInt64, _ result: (UInt64, UInt64)?) throws
    {
        let machine = try BareMachine()
        machine[.RAX] = low
        machine[.RDX] = high
        machine[.RCX] = divisor
        let fault = machine.fault([0x48, 0xF7, 0xF9])  // idiv rcx
        if let result {
            #expect(fault == nil)
            #expect(machine[.RAX] == result.0)
            #expect(machine[.RDX] == result.1)
        } else {
            #expect(fault == .divideError)
            #expect(machine[.RAX] == low)
        }
    }

    /// The check before IDIV agrees with arithmetic of twice the width on every dividend and divisor of one byte.
    @Test func signedByteDivisionIsCheckedExactly() {
        for dividend in 0..<0x10000 {
            for divisor in 0..<256 where divisor % 5 == 0 || divisor == 255 || divisor == 1 {
                let n = Int(Int16(truncatingIfNeeded: dividend))
                let d = Int(Int8(truncatingIfNeeded: divisor))
                let fits = d != 0 && (-128...127).contains(n / (d == 0 ? 1 : d))
                let answer = davit_can_divide_signed(UInt64(dividend & 0xFF), UInt64(dividend >> 8), UInt64(divisor), 1)
                #expect(answer == fits, "\(n) / \(d)")
            }
        }
    }

    @Test func byteMultiplicationFillsAX() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0xFFFF_FFFF_FFFF_FF80
        machine[.RCX] = 0xFF
        try machine.run([0xF6, 0xE1])  // mul cl
        #expect(machine[.RAX] == 0xFFFF_FFFF_FFFF_7F80)
        machine[.RAX] = 0x80
        try machine.run([0xF6, 0xE9])  // imul cl
        #expect(machine[.RAX] == 0x0080)
    }

    @Test func shiftByZeroLeavesFlagsAndClearsTheUpperHalf() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x1_0000_0001
        machine[.RCX] = 32
        machine.flags = RFLAGS.arithmetic
        try machine.run([0xD3, 0xE0])  // shl eax, cl
        #expect(machine.arithmeticFlags == RFLAGS.arithmetic)
        #expect(machine[.RAX] == 1)
    }

    @Test func bitStringsReachOutsideTheirOperand() throws {
        let machine = try BareMachine()
        machine[.RBX] = BareMachine.data
        machine[.RAX] = UInt64(bitPattern: -1)
        try machine.run([0x48, 0x0F, 0xAB, 0x03])  // bts [rbx], rax
        #expect(machine[BareMachine.data - 8, as: UInt64.self] == 1 << 63)
        machine[.RAX] = 64 * 3 + 5
        try machine.run([0x48, 0x0F, 0xBB, 0x03])  // btc [rbx], rax
        #expect(machine[BareMachine.data + 24, as: UInt64.self] == 1 << 5)
    }

    @Test func scanOfZeroKeepsTheDestination() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x1234
        machine[.RBX] = 0
        try machine.run([0x48, 0x0F, 0xBC, 0xC3])  // bsf rax, rbx
        #expect(machine[.RAX] == 0x1234)
        #expect(machine.flags & RFLAGS.ZF != 0)
    }

    @Test func decimalAdjustment() throws {
        let machine = try BareMachine(.protected32)
        machine[.RAX] = 0x79
        machine[.RBX] = 0x35
        try machine.run([0x00, 0xD8])  // add al, bl
        try machine.run([0x27])  // daa
        #expect(machine[.RAX] & 0xFF == 0x14)
        #expect(machine.flags & RFLAGS.CF != 0)
        machine[.RAX] = 0x0605
        try machine.run([0xD5, 0x0A])  // aad
        #expect(machine[.RAX] == 65)
        try machine.run([0xD4, 0x0A])  // aam
        #expect(machine[.RAX] == 0x0605)
        #expect(machine.fault([0xD4, 0x00]) == .divideError)
    }

    // MARK: Moves and exchanges

    @Test func signAndZeroExtension() throws {
        let machine = try BareMachine()
        machine[.RBX] = 0xFFFF_FFFF_8000_FF80
        try machine.run([0x48, 0x0F, 0xBE, 0xC3])  // movsx rax, bl
        #expect(machine[.RAX] == 0xFFFF_FFFF_FFFF_FF80)
        try machine.run([0x0F, 0xB7, 0xC3])  // movzx eax, bx
        #expect(machine[.RAX] == 0xFF80)
        try machine.run([0x48, 0x63, 0xC3])  // movsxd rax, ebx
        #expect(machine[.RAX] == 0xFFFF_FFFF_8000_FF80)
    }

    @Test func conditionalMoveThatDoesNotMoveStillClearsTheUpperHalf() throws {
        let machine = try BareMachine()
        machine[.RAX] = 0x1_0000_0002
        machine.flags = 0
        try machine.run([0x0F, 0x44, 0xC3])  // cmovz eax, ebx
        #expect(machine[.RAX] == 2)
    }

    /// Every condition against its definition, for every set of flags.
    @Test func conditions() throws {
        let machine = try BareMachine()
        for bits in 0..<32 as Range<UInt64> {
            let (c, p, z, s, o) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0, bits & 16 != 0)
            machine.flags =
                (c ? RFLAGS.CF : 0) | (p ? RFLAGS.PF : 0) | (z ? RFLAGS.ZF : 0) | (s ? RFLAGS.SF : 0)
                | (o ? RFLAGS.OF : 0)
            let expected = [o, c, z, c || z, s, p, s != o, z || s != o]
            for condition in 0..<16 {
                try machine.run([0x0F, 0x90 + UInt8(condition), 0xC0])  // setcc al
                #expect(machine[.RAX] & 1 == (expected[condition / 2] != (condition % 2 == 1) ? 1 : 0))
            }
        }
    }

    @Test func compareExchangeReturnsWhatItFound() throws {
        let machine = try BareMachine()
        machine[.RBX] = BareMachine.data
        machine[.RCX] = 7
        machine[.RAX] = 5
        machine[BareMachine.data, as: UInt64.self] = 5
        try machine.run([0xF0, 0x48, 0x0F, 0xB1, 0x0B])  // lock cmpxchg [rbx], rcx
        #expect(machine[BareMachine.data, as: UInt64.self] == 7)
        #expect(machine.flags & RFLAGS.ZF != 0)
        try machine.run([0xF0, 0x48, 0x0F, 0xB1, 0x0B])
        #expect(machine[.RAX] == 7)
        #expect(machine.flags & RFLAGS.ZF == 0)
    }

    @Test func compareExchange16NeedsAlignment() throws {
        let machine = try BareMachine()
        machine[.RBX] = 1
        machine[.RCX] = 2
        machine[.RSI] = BareMachine.data + 8
        #expect(machine.fault([0x48, 0x0F, 0xC7, 0x0E]) == .generalProtection)  // cmpxchg16b [rsi]
        machine[.RSI] = BareMachine.data
        try machine.run([0xF0, 0x48, 0x0F, 0xC7, 0x0E])
        #expect(machine[BareMachine.data, as: UInt64.self] == 1)
        #expect(machine[BareMachine.data + 8, as: UInt64.self] == 2)
        try machine.run([0x48, 0x0F, 0xC7, 0x0E])
        #expect(machine[.RAX] == 1)
        #expect(machine[.RDX] == 2)
        #expect(machine.flags & RFLAGS.ZF == 0)
    }

    @Test func exchangeAndAddOfOneRegisterDoublesIt() throws {
        let machine = try BareMachine()
        machine[.RAX] = 21
        try machine.run([0x0F, 0xC1, 0xC0])  // xadd eax, eax
        #expect(machine[.RAX] == 42)
    }

    // MARK: Stack

    @Test func pushAndPopOfTheStackPointer() throws {
        let machine = try BareMachine()
        try machine.run([0x54])  // push rsp
        #expect(machine[BareMachine.stack - 8, as: UInt64.self] == BareMachine.stack)
        #expect(machine[.RSP] == BareMachine.stack - 8)
        try machine.run([0x5C])  // pop rsp
        #expect(machine[.RSP] == BareMachine.stack)
    }

    @Test func popIntoMemoryAddressesAfterThePop() throws {
        let machine = try BareMachine()
        machine[BareMachine.stack, as: UInt64.self] = 99
        try machine.run([0x8F, 0x04, 0x24])  // pop qword [rsp]
        #expect(machine[BareMachine.stack + 8, as: UInt64.self] == 99)
        #expect(machine[.RSP] == BareMachine.stack + 8)
    }

    @Test func popThatCannotWriteLeavesTheStackPointer() throws {
        let machine = try BareMachine()
        machine[.RBX] = 1 << 63
        #expect(machine.fault([0x8F, 0x03]) == .generalProtection)  // pop qword [rbx]
        #expect(machine[.RSP] == BareMachine.stack)
    }

    @Test func a16BitStackWraps() throws {
        let machine = try BareMachine(.real)
        machine[.RSP] = 0xABCD_0000
        machine[.RAX] = 0x1234
        try machine.run([0x50])  // push ax
        #expect(machine[.RSP] == 0xABCD_FFFE)
        #expect(machine[0xFFFE, as: UInt16.self] == 0x1234)
    }

    @Test func pushAllAndPopAll() throws {
        let machine = try BareMachine(.protected32)
        for (i, register) in [BareMachine.Register.RAX, .RCX, .RDX, .RBX, .RBP, .RSI, .RDI].enumerated() {
            machine[register] = UInt64(i + 1)
        }
        let before = machine.generalRegisters
        try machine.run([0x60])  // pushad
        #expect(machine[BareMachine.stack - 20, as: UInt32.self] == UInt32(BareMachine.stack))
        for register in [BareMachine.Register.RAX, .RCX, .RDX, .RBX, .RBP, .RSI, .RDI] { machine[register] = 0 }
        try machine.run([0x61])  // popad
        #expect(machine.generalRegisters == before)
    }

    @Test func enterCopiesOuterFramesAndLeaveUndoesIt() throws {
        let machine = try BareMachine(.protected32)
        machine[.RBP] = 0x9000
        machine[0x8FFC, as: UInt32.self] = 0x1111
        machine[0x8FF8, as: UInt32.self] = 0x2222
        try machine.run([0xC8, 0x10, 0x00, 0x03])  // enter 16, 3
        let frame = BareMachine.stack - 4
        #expect(machine[.RBP] == frame)
        #expect(machine[frame, as: UInt32.self] == 0x9000)
        #expect(machine[frame - 4, as: UInt32.self] == 0x1111)
        #expect(machine[frame - 8, as: UInt32.self] == 0x2222)
        #expect(machine[frame - 12, as: UInt32.self] == UInt32(frame))
        #expect(machine[.RSP] == frame - 12 - 16)
        try machine.run([0xC9])  // leave
        #expect(machine[.RBP] == 0x9000)
        #expect(machine[.RSP] == BareMachine.stack)
    }

    // MARK: Branches

    @Test func callAndReturn() throws {
        let machine = try BareMachine()
        #expect(try machine.run([0xE8, 0x10, 0, 0, 0]) == BareMachine.code + 5 + 16)
        #expect(machine[BareMachine.stack - 8, as: UInt64.self] == BareMachine.code + 5)
        #expect(try machine.run([0xC2, 0x08, 0x00]) == BareMachine.code + 5)  // ret 8
        #expect(machine[.RSP] == BareMachine.stack + 8)
    }

    @Test func branchToANonCanonicalAddressFaultsBeforeThePush() throws {
        let machine = try BareMachine()
        machine[.RAX] = 1 << 63
        #expect(machine.fault([0xFF, 0xD0]) == .generalProtection)  // call rax
        #expect(machine[.RSP] == BareMachine.stack)
    }

    @Test func branchBeyondTheCodeSegmentFaults() throws {
        let machine = try BareMachine(.real)
        #expect(try machine.run([0xE9, 0xFD, 0x7F]) == 0x9000)
        machine.interpreter.segments[1].limit = 0x7FFF
        #expect(machine.fault([0xE9, 0xFD, 0x7F]) == .generalProtection)
    }

    @Test func loopCountsByAddressSize() throws {
        let machine = try BareMachine()
        machine[.RCX] = 0x1_0000_0001
        #expect(try machine.run([0x67, 0xE2, 0x10]) == BareMachine.code + 3)  // loop by ecx
        #expect(machine[.RCX] == 0)
        machine[.RCX] = 2
        #expect(try machine.run([0xE2, 0x10]) == BareMachine.code + 2 + 16)
        #expect(try machine.run([0xE3, 0x10]) == BareMachine.code + 2)  // jrcxz
    }

    @Test func bounds() throws {
        let machine = try BareMachine(.protected32)
        machine[.RBX] = BareMachine.data
        machine[BareMachine.data, as: Int32.self] = -1
        machine[BareMachine.data + 4, as: Int32.self] = 10
        machine[.RAX] = 0xFFFF_FFFF
        try machine.run([0x62, 0x03])  // bound eax, [ebx]
        machine[.RAX] = 11
        #expect(machine.fault([0x62, 0x03]) == GuestFault(.BR))
    }

    // MARK: Flags

    @Test func popFlagsHeedsPrivilege() throws {
        let machine = try BareMachine(.protected32)
        machine.interpreter.cpu.pointee.cpl = 3
        machine[BareMachine.stack, as: UInt32.self] = UInt32(RFLAGS.IF | RFLAGS.IOPL | RFLAGS.CF)
        try machine.run([0x9D])  // popfd
        #expect(machine.flags == RFLAGS.reserved1 | RFLAGS.CF)
        #expect(machine.fault([0xFA]) == .generalProtection)  // cli
        machine.interpreter.cpu.pointee.cpl = 0
        machine[.RSP] = BareMachine.stack
        try machine.run([0x9D])
        #expect(machine.flags == RFLAGS.reserved1 | RFLAGS.IF | RFLAGS.IOPL | RFLAGS.CF)
    }

    @Test func virtual8086NeedsIOPL3() throws {
        let machine = try BareMachine(.real)
        machine.interpreter.cpu.pointee.cr0 |= CR0.PE
        machine.interpreter.cpu.pointee.cpl = 3
        machine.flags = RFLAGS.VM
        for instruction in [[0x9C], [0x9D], [0xFA], [0xFB]] as [[UInt8]] {
            #expect(machine.fault(instruction) == .generalProtection)
        }
        machine.flags = RFLAGS.VM | RFLAGS.IOPL
        try machine.run([0x9C])  // pushf
        try machine.run([0xFB])  // sti
        #expect(machine.flags & RFLAGS.IF != 0)
    }

    @Test func enablingInterruptsCastsAShadowOnce() throws {
        let machine = try BareMachine()
        try machine.run([0xFB])  // sti
        #expect(machine.interpreter.cpu.pointee.shadow == 1)
        machine.interpreter.cpu.pointee.shadow = 0
        try machine.run([0xFB])
        #expect(machine.interpreter.cpu.pointee.shadow == 0)
    }

    // MARK: Ports

    @Test func portsAndTheirPermission() throws {
        let machine = try BareMachine()
        machine.ports.input = 0x1234_56FF
        machine[.RAX] = 0xAAAA_BBBB_CCCC_DDDD
        try machine.run([0xE4, 0x60])  // in al, 0x60
        #expect(machine[.RAX] == 0xAAAA_BBBB_CCCC_DDFF)
        machine[.RDX] = 0x3F8
        try machine.run([0x66, 0xEF])  // out dx, ax
        #expect(machine.ports.written.count == 1)
        #expect(machine.ports.written[0] == (0x3F8, .two, 0xDDFF))
        machine.interpreter.cpu.pointee.cpl = 3
        #expect(machine.fault([0xEE]) == .generalProtection)
    }
}
