import MachineModel

/// Watchdog Action Table (Microsoft, "Hardware Watchdog Timers Design Specification" 1.01, section 3): how the guest does what with the registers
/// that the board's watchdog has.
public enum WDAT {
    private enum Action: UInt8 {
        case reset = 0x01
        case getCurrentCountdown = 0x04
        case getCountdown = 0x05
        case setCountdown = 0x06
        case getRunning = 0x08
        case setRunning = 0x09
        case getStopped = 0x0A
        case setStopped = 0x0B
        case getReboot = 0x10
        case setReboot = 0x11
        case getStatus = 0x20
        case setStatus = 0x21
    }

    private enum Instruction {
        static let readValue: UInt8 = 0
        static let readCountdown: UInt8 = 1
        static let writeValue: UInt8 = 2
        static let writeCountdown: UInt8 = 3
        static let preserve: UInt8 = 0x80
    }

    /// What the registers are, as their device has them.
    public struct Registers: Sendable {
        /// One byte: bits for running and for a reset when it expires.
        public var control: UInt16
        public var running: UInt8
        public var resets: UInt8
        /// One byte, of which bit 0 tells that it has expired, and is cleared by writing 1.
        public var status: UInt16
        /// Two bytes each.
        public var preset: UInt16
        public var count: UInt16
        /// One byte; a write of 1 reloads it.
        public var reload: UInt16
        /// Of a tick, in milliseconds.
        public var tick: UInt32
        public var counts: ClosedRange<UInt16>

        public init(
            control: UInt16, running: UInt8, resets: UInt8, status: UInt16, preset: UInt16, count: UInt16,
            reload: UInt16,
            tick: UInt32, counts: ClosedRange<UInt16>
        ) {
            self.control = control
            self.running = running
            self.resets = resets
            self.status = status
            self.preset = preset
            self.count = count
            self.reload = reload
            self.tick = tick
            self.counts = counts
        }
    }

    public static func table(_ registers: Registers) -> ACPITable {
        var entries = FieldWriter()
        var count: UInt32 = 0
        func add(_ action: Action, _ instruction: UInt8, _ port: UInt16, bits: UInt8, value: UInt32, mask: UInt32) {
            entries.append(action.rawValue)
            entries.append(instruction)
            entries.append(UInt16(0))
            entries.append(GenericAddress.port(port, bits: bits, access: bits == 8 ? .byte : .word))
            entries.append(value)
            entries.append(mask)
            count += 1
        }
        func flag(_ get: Action, _ set: Action, _ port: UInt16, value: UInt8, mask: UInt8, preserving: Bool) {
            add(get, Instruction.readValue, port, bits: 8, value: UInt32(value), mask: UInt32(mask))
            let write = Instruction.writeValue | (preserving ? Instruction.preserve : 0)
            add(set, write, port, bits: 8, value: UInt32(value), mask: UInt32(mask))
        }
        add(.reset, Instruction.writeValue, registers.reload, bits: 8, value: 1, mask: 0xFF)
        add(.getCurrentCountdown, Instruction.readCountdown, registers.count, bits: 16, value: 0, mask: 0xFFFF)
        add(.getCountdown, Instruction.readCountdown, registers.preset, bits: 16, value: 0, mask: 0xFFFF)
        add(.setCountdown, Instruction.writeCountdown, registers.preset, bits: 16, value: 0, mask: 0xFFFF)
        let (running, resets) = (registers.running, registers.resets)
        flag(.getRunning, .setRunning, registers.control, value: running, mask: running, preserving: true)
        flag(.getStopped, .setStopped, registers.control, value: 0, mask: running, preserving: true)
        flag(.getReboot, .setReboot, registers.control, value: resets, mask: resets, preserving: true)
        flag(.getStatus, .setStatus, registers.status, value: 1, mask: 1, preserving: false)

        var body = FieldWriter()
        // The length of this header, and no PCI device that it would belong to.
        body.append(UInt32(0x20))
        body.append(UInt16(0xFF))
        body.append([0xFF, 0xFF, 0xFF, 0, 0, 0])
        body.append(registers.tick)
        body.append(UInt32(registers.counts.upperBound))
        body.append(UInt32(registers.counts.lowerBound))
        // Enabled.
        body.append(UInt8(1))
        body.append([0, 0, 0])
        body.append(count)
        body.append(entries.bytes)
        return ACPITable(signature: "WDAT", revision: 1, body: body.bytes)
    }
}
