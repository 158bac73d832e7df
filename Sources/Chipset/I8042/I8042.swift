import MachineModel
import Synchronization

/// The keyboard controller of a PC at ports 0x60 and 0x64 with a keyboard and a mouse, and port 0x92 beside it (IBM
/// PS/2 Hardware Interface Technical Reference, October 1990).
///
/// Modelled: command byte, self-tests, both output-buffer interrupts, translation to scan code set 1, loopback of
/// either buffer, the reset line by command 0xFE and by output port bit 0. The A20 gate can be set and read back but
/// masks no address: A20 is always open. Left out: passwords, and the time that bytes take on the cables.
public final class I8042: Sendable {
    /// At `PlatformLayout.Port.keyboardData`, `keyboardCommand` and `systemControlA`, one port each.
    public var dataPort: any PortDevice { Face(.data, of: self) }
    public var commandPort: any PortDevice { Face(.command, of: self) }
    public var systemControlA: any PortDevice { Face(.systemControlA, of: self) }

    private let keyboardIRQ: any IRQLine
    private let mouseIRQ: any IRQLine
    private let control: any MachineControl
    /// Guards everything that changes; held while the interrupt lines are set.
    let chip = Mutex(Chip())

    public init(keyboardIRQ: any IRQLine, mouseIRQ: any IRQLine, control: any MachineControl) {
        self.keyboardIRQ = keyboardIRQ
        self.mouseIRQ = mouseIRQ
        self.control = control
    }

    /// Someone presses or releases keys: scan codes of set 2. Returns whether the keyboard had room for all of them and
    /// is switched on.
    public func press(_ scanCodes: [UInt8]) -> Bool {
        chip.withLock { chip in
            let isTaken = chip.keyboard.press(scanCodes)
            update(&chip)
            return isTaken
        }
    }

    private func readData() -> UInt8 {
        chip.withLock { chip in
            let byte = chip.readData()
            // The lines fall before the next byte raises them, so that each byte is an edge.
            setLines(&chip)
            update(&chip)
            return byte
        }
    }

    private func write(_ body: (inout Chip) -> Bool, cause: ResetCause) {
        let isReset = chip.withLock { chip in
            let isReset = body(&chip)
            update(&chip)
            return isReset
        }
        if isReset { control.report(.reset(cause)) }
    }

    func update(_ chip: inout Chip) {
        chip.fillOutput()
        setLines(&chip)
    }

    private func setLines(_ chip: inout Chip) {
        let (keyboard, auxiliary) = (chip.keyboardIRQ, chip.auxiliaryIRQ)
        if keyboard != chip.keyboardLevel {
            chip.keyboardLevel = keyboard
            keyboardIRQ.set(keyboard)
        }
        if auxiliary != chip.auxiliaryLevel {
            chip.auxiliaryLevel = auxiliary
            mouseIRQ.set(auxiliary)
        }
    }

    /// One of the ports, for the bus.
    private final class Face: BytePortDevice {
        enum Port {
            case data
            case command
            case systemControlA
        }

        let port: Port
        let controller: I8042

        init(_ port: Port, of controller: I8042) {
            self.port = port
            self.controller = controller
        }

        func readByte(offset: UInt16) -> UInt8 {
            guard offset == 0 else { return 0xFF }
            return switch port {
            case .data: controller.readData()
            case .command: controller.chip.withLock { $0.status }
            case .systemControlA: controller.chip.withLock { $0.readSystemControlA }
            }
        }

        func writeByte(offset: UInt16, value: UInt8) {
            guard offset == 0 else { return }
            switch port {
            case .data: controller.write({ $0.write(data: value) }, cause: .keyboardController)
            case .command: controller.write({ $0.write(command: value) }, cause: .keyboardController)
            case .systemControlA: controller.write({ $0.write(systemControlA: value) }, cause: .resetRegister)
            }
        }
    }
}
