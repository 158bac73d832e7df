extension I8042 {
    /// The controller between its ports and its two devices, under the device's lock.
    struct Chip: Sendable {
        /// Where a byte in the output buffer comes from.
        enum Source: UInt8, Codable, Sendable {
            case controller
            case keyboard
            case auxiliary
        }

        struct Output: Equatable, Codable, Sendable {
            var byte: UInt8
            var source: Source
        }

        /// The output buffer.
        var output: Output?
        /// A device's byte that an answer of the controller has displaced from there; it comes next.
        var displaced: Output?
        /// What an empty output buffer still shows.
        var lastData: UInt8 = 0
        /// The controller's RAM; the first byte is the command byte.
        var ram: [UInt8]
        /// A command that waits for its byte at the data port.
        var pending: UInt8?
        var wasCommand = false
        var isA20Open = true
        var systemControlA: UInt8 = 0
        /// The keyboard has sent a break prefix, which marks the next code when it is translated.
        var isBreak = false
        var keyboard = PS2Keyboard()
        var mouse = PS2Mouse()
        /// What the interrupt lines were set to last.
        var keyboardLevel = false
        var auxiliaryLevel = false

        init() {
            ram = [UInt8](repeating: 0, count: 32)
            ram[0] = CommandByte.initial
        }

        var commandByte: UInt8 {
            get { ram[0] }
            set { ram[0] = newValue }
        }

        var status: UInt8 {
            var status = Status.inhibitSwitch
            if let output {
                status |= Status.outputBufferFull
                if output.source == .auxiliary { status |= Status.auxiliaryOutputBufferFull }
            }
            if commandByte & CommandByte.systemFlag != 0 { status |= Status.systemFlag }
            if wasCommand { status |= Status.command }
            return status
        }

        var outputPort: UInt8 {
            var value = OutputPort.systemReset | OutputPort.lines
            if isA20Open { value |= OutputPort.gateA20 }
            if let output {
                value |= output.source == .auxiliary ? OutputPort.auxiliaryBufferFull : OutputPort.keyboardBufferFull
            }
            return value
        }

        var keyboardIRQ: Bool {
            guard let output, output.source != .auxiliary else { return false }
            return commandByte & CommandByte.keyboardInterrupt != 0
        }

        var auxiliaryIRQ: Bool {
            guard let output, output.source == .auxiliary else { return false }
            return commandByte & CommandByte.auxiliaryInterrupt != 0
        }

        // MARK: Output buffer

        /// Lets the next byte of a device that may send into the empty output buffer.
        mutating func fillOutput() {
            if output == nil {
                output = displaced
                displaced = nil
            }
            while output == nil {
                if commandByte & CommandByte.disableKeyboard == 0, let byte = keyboard.takeNext() {
                    translate(byte)
                } else if commandByte & CommandByte.disableAuxiliary == 0, let byte = mouse.takeNext() {
                    output = Output(byte: byte, source: .auxiliary)
                } else {
                    return
                }
            }
        }

        private mutating func translate(_ byte: UInt8) {
            guard commandByte & CommandByte.translate != 0 else {
                output = Output(byte: byte, source: .keyboard)
                return
            }
            if byte == 0xF0 {
                isBreak = true
                return
            }
            // F7 and SysRq are the two keys that set 2 has above 0x7F; answers stay as they are.
            var code = byte
            switch byte {
            case 0x83: code = 0x41
            case 0x84: code = 0x54
            case 0..<0x80: code = PS2Keyboard.translation[Int(byte)]
            default: break
            }
            output = Output(byte: isBreak ? code | 0x80 : code, source: .keyboard)
            isBreak = false
        }

        /// The controller answers, or plays one of its devices. A device's byte that stood in the buffer is not lost:
        /// it comes next.
        private mutating func answer(_ byte: UInt8, from source: Source = .controller) {
            if let output, displaced == nil, output.source != .controller { displaced = output }
            output = Output(byte: byte, source: source)
        }

        mutating func readData() -> UInt8 {
            guard let taken = output else { return lastData }
            lastData = taken.byte
            output = nil
            return taken.byte
        }

        // MARK: Commands

        /// A byte at the command port. Returns whether the machine is reset.
        mutating func write(command: UInt8) -> Bool {
            wasCommand = true
            pending = Command.takesData(command) ? command : nil
            switch command {
            case Command.readRAM: answer(ram[Int(command & 0x1F)])
            case Command.disableAuxiliary: commandByte |= CommandByte.disableAuxiliary
            case Command.enableAuxiliary: commandByte &= ~CommandByte.disableAuxiliary
            case Command.testAuxiliary, Command.testKeyboard: answer(I8042.interfaceTestPassed)
            case Command.selfTest:
                commandByte |= CommandByte.systemFlag
                answer(I8042.selfTestPassed)
            case Command.disableKeyboard: commandByte |= CommandByte.disableKeyboard
            case Command.enableKeyboard: commandByte &= ~CommandByte.disableKeyboard
            case Command.readInputPort: answer(I8042.inputPort)
            case Command.readOutputPort: answer(outputPort)
            case Command.disableA20: isA20Open = false
            case Command.enableA20: isA20Open = true
            case Command.pulse: return command & OutputPort.systemReset == 0
            default: break
            }
            return false
        }

        /// A byte at the data port. Returns whether the machine is reset.
        mutating func write(data: UInt8) -> Bool {
            wasCommand = false
            guard let command = pending else {
                // Speaking to the keyboard lets it speak again.
                commandByte &= ~CommandByte.disableKeyboard
                keyboard.receive(data)
                return false
            }
            pending = nil
            switch command {
            case Command.writeRAM: ram[Int(command & 0x1F)] = data
            case Command.writeOutputPort:
                isA20Open = data & OutputPort.gateA20 != 0
                return data & OutputPort.systemReset == 0
            case Command.writeKeyboardBuffer: answer(data, from: .keyboard)
            case Command.writeAuxiliaryBuffer: answer(data, from: .auxiliary)
            default:
                commandByte &= ~CommandByte.disableAuxiliary
                mouse.receive(data)
            }
            return false
        }

        var readSystemControlA: UInt8 { systemControlA | (isA20Open ? SystemControlA.gateA20 : 0) }

        /// A byte at port 0x92. Returns whether the machine is reset.
        mutating func write(systemControlA value: UInt8) -> Bool {
            let isReset = value & ~systemControlA & SystemControlA.fastReset != 0
            systemControlA = value & ~SystemControlA.gateA20
            isA20Open = value & SystemControlA.gateA20 != 0
            return isReset
        }
    }
}
