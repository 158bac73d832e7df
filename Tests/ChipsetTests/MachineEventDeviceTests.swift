import DavitTesting
import MachineModel
import Synchronization
import Testing

@testable import Chipset

/// The devices whose registers do nothing but end the machine.
@Suite struct MachineEventDeviceTests {
    let control = RecordingMachineControl()

    // MARK: Reset control

    @Test func acpiResetsWithOneWrite() {
        let reset = ResetControl(control: control)
        reset.out(1, PlatformLayout.ACPI.resetValue)
        #expect(control.events == [.reset(.resetRegister)])
    }

    @Test func linuxResetsWithTwoWrites() {
        let reset = ResetControl(control: control)
        reset.out(1, 0x02)
        #expect(control.events == [])
        #expect(reset.byte(1) == 0x02)
        reset.out(1, 0x06)
        reset.out(1, 0x06)
        #expect(control.events == [.reset(.resetRegister)], "only going from zero to one resets")
    }

    @Test func aPCIAddressDoesNotReset() {
        let reset = ResetControl(control: control)
        reset.writePort(offset: 0, width: .four, value: 0x8000_FE00)
        reset.writePort(offset: 1, width: .two, value: 0x0606)
        reset.out(0, 0x06)
        #expect(control.events == [])
        #expect(reset.readPort(offset: 0, width: .four) == UInt32.max)
    }

    // MARK: pvpanic

    @Test func aPanicIsReported() {
        let loads = Atomic<Int>(0)
        let panic = PVPanic(control: control) { loads.add(1, ordering: .relaxed) }
        #expect(panic.byte(0) == 0x03)
        panic.out(0, 0)
        panic.out(0, 0xFC)
        #expect(control.events == [])
        panic.out(0, 0x02)
        #expect(control.events == [])
        #expect(loads.load(ordering: .relaxed) == 1)
        panic.out(0, 0x01)
        #expect(control.events == [.guestPanic])
    }

    // MARK: Debug exit

    @Test(arguments: [AccessWidth.one, .two, .four])
    func aWriteEndsTheMachine(width: AccessWidth) {
        let exit = DebugExit(control: control)
        #expect(exit.readPort(offset: 0, width: width) == 0)
        exit.writePort(offset: 0, width: width, value: 0x10)
        #expect(control.events == [.debugExit(code: 0x10)])
    }
}
