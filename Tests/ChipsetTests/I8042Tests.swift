import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct I8042Tests {
    let keyboardIRQ = RecordingIRQLine()
    let mouseIRQ = RecordingIRQLine()
    let control = RecordingMachineControl()
    let controller: I8042
    let data: any PortDevice
    let command: any PortDevice

    init() {
        controller = I8042(keyboardIRQ: keyboardIRQ, mouseIRQ: mouseIRQ, control: control)
        data = controller.dataPort
        command = controller.commandPort
    }

    /// Reads what waits in the output buffer, until it is empty.
    func drain() -> [UInt8] {
        var bytes: [UInt8] = []
        while command.byte(0) & 0x01 != 0, bytes.count < 100 { bytes.append(data.byte(0)) }
        return bytes
    }

    func ask(_ value: UInt8, _ parameter: UInt8? = nil) -> [UInt8] {
        command.out(0, value)
        if let parameter { data.out(0, parameter) }
        return drain()
    }

    func keyboard(_ bytes: UInt8...) -> [UInt8] {
        bytes.flatMap { byte in
            data.out(0, byte)
            return drain()
        }
    }

    func mouse(_ bytes: UInt8...) -> [UInt8] { bytes.flatMap { ask(0xD4, $0) } }

    // MARK: Controller

    @Test func selfTestsPass() {
        #expect(command.byte(0) == 0x14, "empty, tested, unlocked")
        #expect(ask(0xAA) == [0x55])
        #expect(ask(0xAB) == [0x00])
        #expect(ask(0xA9) == [0x00])
        #expect(ask(0xC0) == [0x80])
    }

    @Test func theCommandByteIsKept() {
        #expect(ask(0x20) == [0x65])
        #expect(ask(0x60, 0x47) == [])
        #expect(ask(0x20) == [0x47])
        #expect(ask(0x61, 0xA5) == [])
        #expect(ask(0x21) == [0xA5])
    }

    @Test func bothInterfacesSwitchInTheCommandByte() {
        for (value, bit) in [(0xAD, 0x10), (0xA7, 0x20)] as [(UInt8, UInt8)] {
            command.out(0, value)
            #expect(ask(0x20)[0] & bit == bit)
            command.out(0, value + 1)
            #expect(ask(0x20)[0] & bit == 0)
        }
    }

    @Test func statusTellsCommandsFromData() {
        command.out(0, 0xAE)
        #expect(command.byte(0) & 0x08 != 0)
        data.out(0, 0xEE)
        #expect(command.byte(0) & 0x08 == 0)
    }

    @Test func theAuxiliaryLoopIsWhatLinuxLooksFor() {
        command.out(0, 0xD3)
        data.out(0, 0x5A)
        #expect(command.byte(0) & 0x21 == 0x21)
        #expect(data.byte(0) == 0x5A)
        #expect(!mouseIRQ.level)
        // With its interrupt on, the loop is how the line is tested.
        #expect(ask(0x60, 0x47) == [])
        command.out(0, 0xD3)
        data.out(0, 0xA5)
        #expect(mouseIRQ.level)
        #expect(!keyboardIRQ.level)
        #expect(data.byte(0) == 0xA5)
        #expect(!mouseIRQ.level)
    }

    @Test func theKeyboardLoopRaisesIRQ1() {
        #expect(ask(0xD2, 0x1E) == [0x1E])
        #expect(keyboardIRQ.edges == [true, false])
    }

    @Test func anAnswerComesBeforeWhatAKeyHasSent() {
        #expect(controller.press([0x1C]))
        command.out(0, 0x20)
        #expect(drain() == [0x65, 0x1E])
    }

    @Test func theOutputPortShowsBuffersAndA20() {
        #expect(ask(0xD0) == [0xC3])
        #expect(controller.press([0x1C]))
        command.out(0, 0xD0)
        #expect(data.byte(0) == 0xD3)
        _ = drain()
        #expect(ask(0xD1, 0xDD) == [])
        #expect(ask(0xD0) == [0xC1])
        #expect(controller.systemControlA.byte(0) == 0x00)
        #expect(ask(0xDF) == [])
        #expect(controller.systemControlA.byte(0) == 0x02)
    }

    // MARK: Reset

    @Test func pulsingLineZeroResets() {
        command.out(0, 0xFE)
        #expect(control.events == [.reset(.keyboardController)])
        control.clear()
        command.out(0, 0xFF)
        command.out(0, 0xFD)
        #expect(control.events == [])
        command.out(0, 0xF0)
        #expect(control.events == [.reset(.keyboardController)])
    }

    @Test func theOutputPortResets() {
        #expect(ask(0xD1, 0xDF) == [])
        #expect(control.events == [])
        #expect(ask(0xD1, 0xDE) == [])
        #expect(control.events == [.reset(.keyboardController)])
    }

    @Test func port92ResetsAndOpensA20() {
        let port = controller.systemControlA
        #expect(port.byte(0) == 0x02)
        port.out(0, 0x00)
        #expect(ask(0xD0)[0] & 0x02 == 0)
        port.out(0, 0x02)
        #expect(control.events == [])
        port.out(0, 0x03)
        #expect(control.events == [.reset(.resetRegister)])
    }

    // MARK: Keyboard

    @Test func theKeyboardIdentifiesItself() {
        #expect(keyboard(0xF2) == [0xFA, 0xAB, 0x41], "translated")
        #expect(ask(0x60, 0x05) == [])
        #expect(keyboard(0xF2) == [0xFA, 0xAB, 0x83])
    }

    @Test func theKeyboardAnswersWhatLinuxAsks() {
        #expect(keyboard(0xFF) == [0xFA, 0xAA])
        #expect(keyboard(0xED, 0x07) == [0xFA, 0xFA])
        #expect(controller.saveState().keyboard.leds == 0x07)
        #expect(keyboard(0xF3, 0x00) == [0xFA, 0xFA])
        #expect(keyboard(0xF4) == [0xFA])
        #expect(keyboard(0xEE) == [0xEE])
        #expect(keyboard(0xF6) == [0xFA])
        #expect(ask(0x60, 0x05) == [])
        #expect(keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x02])
        #expect(keyboard(0xF0, 0x03) == [0xFA, 0xFA])
        #expect(keyboard(0xF0, 0x00) == [0xFA, 0xFA, 0x03])
        #expect(keyboard(0xF0, 0x09) == [0xFA, 0xFE])
        #expect(keyboard(0xFE) == [0xFE], "what was sent last comes again")
        #expect(keyboard(0xEA) == [0xFE], "an unknown command")
    }

    @Test func aCommandInAParametersPlaceIsACommand() {
        #expect(keyboard(0xED, 0xF4) == [0xFA, 0xFA])
        #expect(controller.saveState().keyboard.pending == nil)
        #expect(controller.saveState().keyboard.leds == 0)
    }

    @Test func eachByteIsAnEdgeOnIRQ1() {
        data.out(0, 0xF2)
        #expect(keyboardIRQ.edges == [true])
        _ = drain()
        #expect(keyboardIRQ.edges == [true, false, true, false, true, false])
    }

    @Test func withoutItsInterruptTheBufferIsPolled() {
        #expect(ask(0x60, 0x44) == [])
        #expect(keyboard(0xF2) == [0xFA, 0xAB, 0x41])
        #expect(keyboardIRQ.edges == [])
    }

    @Test func keysAreTranslatedToSetOne() {
        // Control, alt and delete go down; delete comes up.
        #expect(controller.press([0x14, 0x11, 0xE0, 0x71, 0xE0, 0xF0, 0x71, 0x83, 0xF0, 0x83]))
        #expect(drain() == [0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0x41, 0xC1])
    }

    @Test func aSwitchedOffKeyboardIsSilent() {
        #expect(keyboard(0xF5) == [0xFA])
        #expect(!controller.press([0x1C]))
        #expect(keyboard(0xF4) == [0xFA])
        command.out(0, 0xAD)
        #expect(controller.press([0x1C]))
        #expect(drain() == [], "the interface is off")
        command.out(0, 0xAE)
        #expect(drain() == [0x1E])
    }

    @Test func aFullKeyboardTakesNoMore() {
        command.out(0, 0xAD)
        #expect(controller.press([UInt8](repeating: 0x1C, count: 16)))
        #expect(!controller.press([0x1C]))
        command.out(0, 0xAE)
        #expect(drain().count == 16)
    }

    // MARK: Mouse

    @Test func theMouseAnswersWhatLinuxAsks() {
        #expect(mouse(0xFF) == [0xFA, 0xAA, 0x00])
        #expect(mouse(0xF2) == [0xFA, 0x00])
        #expect(mouse(0xE8, 0x03) == [0xFA, 0xFA])
        #expect(mouse(0xF3, 0x50) == [0xFA, 0xFA])
        #expect(mouse(0xE9) == [0xFA, 0x00, 0x03, 0x50])
        #expect(mouse(0xE7, 0xF4) == [0xFA, 0xFA])
        #expect(mouse(0xE9) == [0xFA, 0x30, 0x03, 0x50])
        #expect(mouse(0xEB) == [0xFA, 0x08, 0x00, 0x00])
        #expect(mouse(0xF6) == [0xFA])
        #expect(mouse(0xE9) == [0xFA, 0x00, 0x02, 0x64])
        #expect(mouse(0xEE, 0x12, 0xEC) == [0xFA, 0x12, 0xFA])
        #expect(mouse(0xF0, 0xEA, 0xE6, 0xF5) == [0xFA, 0xFA, 0xFA, 0xFA])
        #expect(mouse(0xE1) == [0xFE])
        #expect(mouse(0xFE) == [0xFE])
    }

    @Test func mouseBytesAreMarkedAndUseIRQ12() {
        #expect(ask(0x60, 0x47) == [])
        command.out(0, 0xD4)
        data.out(0, 0xF2)
        #expect(command.byte(0) & 0x21 == 0x21)
        #expect(mouseIRQ.level)
        #expect(drain() == [0xFA, 0x00])
        #expect(mouseIRQ.edges == [true, false, true, false])
        #expect(keyboardIRQ.risingEdges == 0)
    }

    // MARK: State

    @Test func stateSurvivesSaveAndRestore() throws {
        #expect(controller.press([0x1C, 0xF0, 0x1C]))
        command.out(0, 0xD4)
        data.out(0, 0xF2)
        command.out(0, 0xD4)
        let state = controller.saveState()
        let line = RecordingIRQLine()
        let other = I8042(keyboardIRQ: line, mouseIRQ: mouseIRQ, control: control)
        try other.restore(state)
        #expect(other.saveState() == state)
        #expect(line.level)
        #expect(other.dataPort.byte(0) == 0x1E)
    }

    @Test func impossibleStatesAreRefused() {
        let good = controller.saveState()
        let lies: [(inout I8042State) -> Void] = [
            { $0.version = 0 }, { $0.ram = [1] }, { $0.systemControlA = 2 }, { $0.pending = 0xAA },
            { $0.output = I8042State.Output(byte: 0, source: 3) },
            { $0.keyboard.queue = [UInt8](repeating: 0, count: 17) },
            { $0.keyboard.scanCodeSet = 0 }, { $0.keyboard.leds = 0xFF }, { $0.keyboard.pending = 0xFF },
            { $0.mouse.queue = [UInt8](repeating: 0, count: 17) }, { $0.mouse.resolution = 4 },
            { $0.mouse.pending = 0 },
        ]
        for lie in lies {
            var state = good
            lie(&state)
            #expect(throws: InvalidDeviceState.self) { try controller.restore(state) }
        }
        #expect(controller.saveState() == good)
    }

    @Test func anyAccessIsSurvived() {
        let ports = [data, command, controller.systemControlA]
        var random = SplitMix(seed: 0x8042)
        for _ in 0..<50_000 {
            let value = random.next()
            ports[Int(value & 0xFF) % 3].hammer(offset: 0, value: value, widths: 3)
            if value >> 60 == 0 {
                _ = controller.press([UInt8](repeating: UInt8(truncatingIfNeeded: value >> 8), count: 5))
            }
        }
        let state = controller.saveState()
        #expect(state.keyboard.queue.count <= 16)
        #expect(state.mouse.queue.count <= 16)
        #expect(throws: Never.self) { try controller.restore(state) }
    }
}
