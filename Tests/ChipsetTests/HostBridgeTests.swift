import Chipset
import DavitTesting
import MachineModel
import Testing

@Suite struct HostBridgeTests {
    private let control = RecordingMachineControl()
    private let bridge: HostBridge

    init() { bridge = HostBridge(resetControl: ResetControl(control: control)) }

    /// Selects a register through CONFIG_ADDRESS and reads CONFIG_DATA.
    private func read(device: UInt32, register: UInt32, byte: UInt16 = 0, width: AccessWidth = .four) -> UInt32 {
        bridge.writePort(offset: 0, width: .four, value: 1 << 31 | device << 11 | register)
        return bridge.readPort(offset: 4 + byte, width: width)
    }

    @Test func aGuestFindsConfigurationMechanism1() {
        bridge.writePort(offset: 0, width: .four, value: 0x8000_0000)
        #expect(bridge.readPort(offset: 0, width: .four) == 0x8000_0000)
        bridge.writePort(offset: 0, width: .four, value: UInt32.max)
        #expect(bridge.readPort(offset: 0, width: .four) == 0x80FF_FFFC)
    }

    @Test func theOnlyDeviceIsAHostBridge() {
        #expect(read(device: 0, register: 0) == 0x0D57_8086)
        #expect(read(device: 0, register: 8, byte: 2, width: .two) == 0x0600)
        #expect(read(device: 0, register: 0xC, byte: 2, width: .one) == 0)
        for device in 1..<32 as Range<UInt32> { #expect(read(device: device, register: 0) == UInt32.max) }
    }

    @Test func nothingAnswersWhileItIsDisabled() {
        bridge.writePort(offset: 0, width: .four, value: 0)
        #expect(bridge.readPort(offset: 4, width: .four) == UInt32.max)
    }

    @Test func aWideWriteIsAnAddressAndAByteWriteResets() {
        bridge.writePort(offset: 0, width: .four, value: 0x0000_0600)
        #expect(control.events.isEmpty)
        bridge.writePort(offset: 1, width: .one, value: 0x06)
        #expect(control.events == [.reset(.resetRegister)])
    }

    @Test func writesToTheConfigurationSpaceChangeNothing() {
        _ = read(device: 0, register: 0)
        bridge.writePort(offset: 4, width: .four, value: 0)
        #expect(read(device: 0, register: 0) == 0x0D57_8086)
    }
}
