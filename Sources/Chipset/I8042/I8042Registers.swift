/// Bits and commands of the keyboard controller in the spelling of IBM's PS/2 Hardware Interface Technical Reference
/// (October 1990), "Keyboard and Auxiliary Device Controller".
extension I8042 {
    enum Status {
        static let outputBufferFull: UInt8 = 1 << 0
        /// The power-on test has passed; follows the command byte.
        static let systemFlag: UInt8 = 1 << 2
        /// What was written last went to the command port.
        static let command: UInt8 = 1 << 3
        /// The keyboard is not locked by a key.
        static let inhibitSwitch: UInt8 = 1 << 4
        static let auxiliaryOutputBufferFull: UInt8 = 1 << 5
    }

    enum CommandByte {
        static let keyboardInterrupt: UInt8 = 1 << 0
        static let auxiliaryInterrupt: UInt8 = 1 << 1
        static let systemFlag: UInt8 = 1 << 2
        static let disableKeyboard: UInt8 = 1 << 4
        static let disableAuxiliary: UInt8 = 1 << 5
        static let translate: UInt8 = 1 << 6
        /// As the power-on test of a PC leaves it.
        static let initial = keyboardInterrupt | systemFlag | disableAuxiliary | translate
    }

    enum Command {
        static let readRAM: ClosedRange<UInt8> = 0x20...0x3F
        static let writeRAM: ClosedRange<UInt8> = 0x60...0x7F
        static let disableAuxiliary: UInt8 = 0xA7
        static let enableAuxiliary: UInt8 = 0xA8
        static let testAuxiliary: UInt8 = 0xA9
        static let selfTest: UInt8 = 0xAA
        static let testKeyboard: UInt8 = 0xAB
        static let disableKeyboard: UInt8 = 0xAD
        static let enableKeyboard: UInt8 = 0xAE
        static let readInputPort: UInt8 = 0xC0
        static let readOutputPort: UInt8 = 0xD0
        static let writeOutputPort: UInt8 = 0xD1
        static let writeKeyboardBuffer: UInt8 = 0xD2
        static let writeAuxiliaryBuffer: UInt8 = 0xD3
        static let writeAuxiliary: UInt8 = 0xD4
        static let disableA20: UInt8 = 0xDD
        static let enableA20: UInt8 = 0xDF
        /// Output port bits whose bit in the command is zero go low for a moment.
        static let pulse: ClosedRange<UInt8> = 0xF0...0xFF
        /// Those that are followed by a byte at the data port.
        static func takesData(_ command: UInt8) -> Bool {
            writeRAM.contains(command) || (writeOutputPort...writeAuxiliary).contains(command)
        }
    }

    enum OutputPort {
        /// Low resets the machine.
        static let systemReset: UInt8 = 1 << 0
        static let gateA20: UInt8 = 1 << 1
        static let keyboardBufferFull: UInt8 = 1 << 4
        static let auxiliaryBufferFull: UInt8 = 1 << 5
        /// Keyboard clock and data are released.
        static let lines: UInt8 = 0xC0
    }

    enum SystemControlA {
        /// Going from zero to one resets the processor.
        static let fastReset: UInt8 = 1 << 0
        static let gateA20: UInt8 = 1 << 1
    }

    static let selfTestPassed: UInt8 = 0x55
    static let interfaceTestPassed: UInt8 = 0x00
    /// The keyboard is not locked.
    static let inputPort: UInt8 = 0x80
}
