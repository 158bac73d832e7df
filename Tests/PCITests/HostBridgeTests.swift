import MachineModel
import PCI
import Testing

@Suite struct HostBridgeTests {
    let machine: PCIMachine

    init() throws { machine = try PCIMachine() }

    @Test func aGuestFindsConfigurationMechanism1() {
        machine.bus.writePort(0xCF8, width: .four, value: 0x8000_0000)
        #expect(machine.bus.readPort(0xCF8, width: .four) == 0x8000_0000)
        machine.bus.writePort(0xCF8, width: .four, value: UInt32.max)
        #expect(machine.bus.readPort(0xCF8, width: .four) == 0x80FF_FFFC)
    }

    @Test func theOnlyDeviceIsAHostBridge() {
        #expect(machine.readPort(device: 0, register: 0) == 0x0D57_8086)
        #expect(machine.readPort(device: 0, register: 8, byte: 2, width: .two) == 0x0600)
        #expect(machine.readPort(device: 0, register: 0xC, byte: 2, width: .one) == 0)
        for device in 1..<32 as Range<UInt32> { #expect(machine.readPort(device: device, register: 0) == UInt32.max) }
    }

    @Test func bothWaysLeadToTheSameRegisters() throws {
        _ = try machine.addMemory()
        #expect(machine.read(device: 1, 0) == 0x1042_1AF4)
        #expect(machine.readPort(device: 1, register: 0) == 0x1042_1AF4)
        machine.write(device: 1, 4, .two, 2)
        #expect(machine.readPort(device: 1, register: 4, width: .two) == 2)
    }

    @Test func nothingAnswersOnOtherBusesAndFunctions() {
        #expect(machine.read(device: 32, 0) == 0xFFFF_FFFF)
        #expect(machine.bus.readMMIO(.init(0xE000_1000), width: .four) == 0xFFFF_FFFF)
        #expect(machine.bus.readMMIO(.init(0xEFFF_F000), width: .four) == 0xFFFF_FFFF)
    }

    @Test func nothingAnswersWhileItIsDisabled() {
        machine.bus.writePort(0xCF8, width: .four, value: 0)
        #expect(machine.bus.readPort(0xCFC, width: .four) == UInt32.max)
    }

    @Test func aWideWriteIsAnAddressAndAByteWriteIsForTheResetRegister() {
        machine.bus.writePort(0xCF8, width: .four, value: 0x0000_0600)
        #expect(machine.bus.readPort(0xCF9, width: .one) == 0x5A)
        #expect(machine.bus.readPort(0xCF8, width: .four) == 0x0000_0600)
    }

    @Test func readOnlyRegistersStayAsTheyAre() {
        machine.write(device: 0, 0, .four, 0)
        #expect(machine.read(device: 0, 0) == 0x0D57_8086)
    }

    /// 1-, 2-, 4- and 8-byte accesses at every offset: nothing traps, and what is not aligned reads as ones.
    @Test func anyAccessIsSurvived() throws {
        _ = try machine.addMemory()
        for offset in 0..<0x1000 as Range<UInt64> {
            for width in [AccessWidth.one, .two, .four, .eight] {
                machine.write(device: 1, offset, width, UInt64.max)
                _ = machine.read(device: 1, offset, width)
            }
        }
        #expect(machine.read(device: 1, 1, .two) == 0xFFFF)
        #expect(machine.read(device: 1, 0) == 0x1042_1AF4)
    }
}
