import MachineModel

/// The keyboard controller with its keyboard and mouse in a snapshot.
public struct I8042State: DeviceState {
    public static let currentVersion: UInt32 = 1

    /// A byte in the output buffer: where it comes from is 0 for the controller, 1 for the keyboard, 2 for the mouse.
    public struct Output: Codable, Equatable, Sendable {
        public var byte: UInt8
        public var source: UInt8
    }

    public struct Keyboard: Codable, Equatable, Sendable {
        public var queue: [UInt8]
        public var pending: UInt8?
        public var scanCodeSet: UInt8
        public var isScanning: Bool
        public var leds: UInt8
        public var lastSent: UInt8
    }

    public struct Mouse: Codable, Equatable, Sendable {
        public var queue: [UInt8]
        public var pending: UInt8?
        public var sampleRate: UInt8
        public var resolution: UInt8
        public var isScaling: Bool
        public var isReporting: Bool
        public var isRemote: Bool
        public var isWrapping: Bool
        public var lastSent: UInt8
    }

    public var version = Self.currentVersion
    public var output: Output?
    public var displaced: Output?
    public var lastData: UInt8
    /// 32 bytes, the command byte first.
    public var ram: [UInt8]
    public var pending: UInt8?
    public var wasCommand: Bool
    public var isA20Open: Bool
    public var systemControlA: UInt8
    public var isBreak: Bool
    public var keyboard: Keyboard
    public var mouse: Mouse
}

extension I8042 {
    public func saveState() -> I8042State {
        let chip = chip.withLock { $0 }
        let (keyboard, mouse) = (chip.keyboard, chip.mouse)
        func saved(_ output: Chip.Output?) -> I8042State.Output? {
            output.map { I8042State.Output(byte: $0.byte, source: $0.source.rawValue) }
        }
        return I8042State(
            output: saved(chip.output), displaced: saved(chip.displaced), lastData: chip.lastData, ram: chip.ram,
            pending: chip.pending, wasCommand: chip.wasCommand, isA20Open: chip.isA20Open,
            systemControlA: chip.systemControlA, isBreak: chip.isBreak,
            keyboard: I8042State.Keyboard(
                queue: keyboard.queue, pending: keyboard.pending, scanCodeSet: keyboard.scanCodeSet,
                isScanning: keyboard.isScanning, leds: keyboard.leds, lastSent: keyboard.lastSent),
            mouse: I8042State.Mouse(
                queue: mouse.queue, pending: mouse.pending, sampleRate: mouse.sampleRate, resolution: mouse.resolution,
                isScaling: mouse.isScaling, isReporting: mouse.isReporting, isRemote: mouse.isRemote,
                isWrapping: mouse.isWrapping, lastSent: mouse.lastSent))
    }

    /// Throws and changes nothing if no controller could be in this state.
    public func restore(_ state: I8042State) throws(InvalidDeviceState) {
        try state.checkVersion(of: "i8042")
        func check(_ holds: Bool, _ reason: String) throws(InvalidDeviceState) {
            if !holds { throw InvalidDeviceState("i8042", reason) }
        }
        func restored(_ output: I8042State.Output?) throws(InvalidDeviceState) -> Chip.Output? {
            guard let output else { return nil }
            guard let source = Chip.Source(rawValue: output.source) else {
                throw InvalidDeviceState("i8042", "output buffer filled by source \(output.source)")
            }
            return Chip.Output(byte: output.byte, source: source)
        }
        let (keyboard, mouse) = (state.keyboard, state.mouse)
        try check(state.ram.count == 32, "\(state.ram.count) bytes of RAM")
        try check(state.systemControlA & SystemControlA.gateA20 == 0, "port 0x92 has the A20 gate, which stands apart")
        try check(state.pending.map(Command.takesData) ?? true, "a command that takes no data waits for some")
        try check(keyboard.queue.count <= PS2Keyboard.queueLimit, "\(keyboard.queue.count) bytes from the keyboard")
        try check((1...3).contains(keyboard.scanCodeSet), "scan code set \(keyboard.scanCodeSet)")
        try check(keyboard.leds & ~0x07 == 0, "LEDs that no keyboard has")
        try check(keyboard.pending.map(PS2Keyboard.takesParameter) ?? true, "a keyboard command waits for nothing")
        try check(mouse.queue.count <= PS2Mouse.queueLimit, "\(mouse.queue.count) bytes from the mouse")
        try check(mouse.resolution <= 3, "mouse resolution \(mouse.resolution)")
        try check(mouse.pending.map(PS2Mouse.takesParameter) ?? true, "a mouse command waits for nothing")
        let (output, displaced) = (try restored(state.output), try restored(state.displaced))
        chip.withLock { chip in
            (chip.output, chip.displaced, chip.lastData) = (output, displaced, state.lastData)
            (chip.ram, chip.pending, chip.wasCommand) = (state.ram, state.pending, state.wasCommand)
            (chip.isA20Open, chip.systemControlA) = (state.isA20Open, state.systemControlA)
            chip.isBreak = state.isBreak
            chip.keyboard = PS2Keyboard(
                queue: keyboard.queue, pending: keyboard.pending, scanCodeSet: keyboard.scanCodeSet,
                isScanning: keyboard.isScanning, leds: keyboard.leds, lastSent: keyboard.lastSent)
            chip.mouse = PS2Mouse(
                queue: mouse.queue, pending: mouse.pending, sampleRate: mouse.sampleRate, resolution: mouse.resolution,
                isScaling: mouse.isScaling, isReporting: mouse.isReporting, isRemote: mouse.isRemote,
                isWrapping: mouse.isWrapping, lastSent: mouse.lastSent)
            update(&chip)
        }
    }
}
