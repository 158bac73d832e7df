import MachineModel
import PCI
import Testing

@Suite struct BARTests {
    let machine: PCIMachine
    private let command: UInt64 = 4
    private let bar0: UInt64 = 0x10

    init() throws { machine = try PCIMachine() }

    @Test func anAllOnesWriteTellsTheSize() throws {
        _ = try machine.addMemory()
        #expect(machine.read(device: 1, bar0) == 0xC000_0000)
        machine.write(device: 1, bar0, .four, 0xFFFF_FFFF)
        #expect(machine.read(device: 1, bar0) == 0xFFFF_F000)
        machine.write(device: 1, bar0 + 4, .four, 0xFFFF_FFFF)
        #expect(machine.read(device: 1, bar0 + 4) == 0)
    }

    @Test func memoryAnswersOnceItIsSwitchedOnAndWhereItIsMovedTo() throws {
        _ = try machine.addMemory()
        #expect(machine.readMemory(0xC000_0000) == 0xFFFF_FFFF)
        machine.write(device: 1, command, .two, 2)
        #expect(machine.readMemory(0xC000_0000) == 0xA5A5_A5A5)
        machine.write(device: 1, bar0, .four, 0xC123_4000)
        #expect(machine.readMemory(0xC000_0000) == 0xFFFF_FFFF)
        #expect(machine.readMemory(0xC123_4000) == 0xA5A5_A5A5)
        machine.write(device: 1, command, .two, 0)
        #expect(machine.readMemory(0xC123_4000) == 0xFFFF_FFFF)
    }

    @Test func aBARMovedOntoAnotherOneAnswersNowhere() throws {
        _ = try machine.addMemory("first", byte: 0x11)
        _ = try machine.addMemory("second", byte: 0x22)
        #expect(machine.read(device: 2, bar0) == 0xC000_1000)
        machine.write(device: 1, command, .two, 2)
        machine.write(device: 2, command, .two, 2)
        #expect(machine.readMemory(0xC000_1000) == 0x2222_2222)
        machine.write(device: 2, bar0, .four, 0xC000_0000)
        #expect(machine.readMemory(0xC000_0000) == 0x1111_1111)
        #expect(machine.readMemory(0xC000_1000) == 0xFFFF_FFFF)
        machine.write(device: 2, bar0, .four, 0xC000_8000)
        #expect(machine.readMemory(0xC000_8000) == 0x2222_2222)
    }

    @Test func aBARMovedOntoTheConfigurationSpaceAnswersNowhere() throws {
        _ = try machine.addMemory()
        machine.write(device: 1, command, .two, 2)
        machine.write(device: 1, bar0, .four, 0xE000_0000)
        #expect(machine.read(device: 0, 0) == 0x0D57_8086)
    }
}
