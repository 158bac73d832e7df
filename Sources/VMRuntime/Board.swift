import Chipset
import DeviceBus
import GuestMemory
import HostLinux
import MachineModel
import VirtioDevices

/// The chips of a machine from one reset to the next: buses, engine, and every device with its place.
struct Board: Sendable {
    private(set) var engine: any Engine
    private let engineParts: EngineParts
    /// Where the engine is plugged in; nil if it has all interrupt controllers and is there to stay.
    private let socket: LocalAPICSocket?
    private let clock: MonotonicClock
    private let control: BoardControl
    private let serialPorts: [UART16550]
    private let power: PowerManagement
    private let channels: [BoardChannel]
    private let terminalSize: TerminalSize?
    private let virtio: VirtioSlots

    /// Builds a PC for `machine`. Devices report to `control`.
    /// `cause`: of the reset that it wakes from, if there was one.
    init(
        _ machine: Machine, engine choice: ComponentChoice, control: BoardControl, after cause: ResetCause?
    ) throws(MachineError) {
        let configuration = machine.configuration
        let log = machine.log
        let clock: MonotonicClock
        do throws(SystemError) {
            clock = try MonotonicClock(threadName: "davit-clock")
        } catch {
            throw MachineError(.host, "the machine's clock gets no thread: \(error)")
        }
        let bus = SystemBus()
        if configuration.trace.contains(.io) { bus.trace { log.write(.warning, $0.description) } }
        engineParts = EngineParts(
            memory: machine.memory, io: bus, clock: clock, vcpuCount: configuration.cpuCount,
            features: configuration.features, trace: configuration.trace,
            log: { configuration.trace.isEmpty ? log.writeFromGuest($0) : log.write(.warning, $0) })
        engine = try Catalog.engines.make(choice, engineParts)
        let interrupts: EngineInterrupts
        if case .localAPICs(let apics) = engine.interrupts {
            let socket = LocalAPICSocket(apics)
            interrupts = .localAPICs(socket)
            self.socket = socket
        } else {
            interrupts = engine.interrupts
            socket = nil
        }
        channels = machine.allChannels.map(BoardChannel.init)
        terminalSize = machine.terminalSize

        var serialPorts: [UART16550] = []
        do {
            let lines = try InterruptLines(interrupts, on: bus)
            let hpet = HPET(
                irq0: lines.isa(PlatformLayout.IRQ.pit), irq8: lines.isa(PlatformLayout.IRQ.rtc), line: lines.pin,
                clock: clock)
            try bus.mmio.attach(hpet, name: "hpet", at: PlatformLayout.MMIO.hpet, size: PlatformLayout.MMIO.hpetSize)
            if !lines.hasPIT {
                let pit = PIT8254(irq: hpet.pitLine, clock: clock)
                try bus.ports.attach(pit, name: "pit", at: PlatformLayout.Port.pit)
                try bus.ports.attach(
                    pit.systemControlPort, name: "system control B",
                    at: PlatformLayout.Port.systemControlB...PlatformLayout.Port.systemControlB)
            }
            let high = machine.memory.regions.dropFirst().reduce(0) { $0 + $1.size }
            let rtc = RTC(
                irq: hpet.rtcLine, clock: clock, memoryBelow4G: machine.memory.size - high, memoryAbove4G: high)
            try bus.ports.attach(rtc, name: "rtc", at: PlatformLayout.Port.rtc)

            let keyboard = I8042(
                keyboardIRQ: lines.isa(PlatformLayout.IRQ.keyboard), mouseIRQ: lines.isa(PlatformLayout.IRQ.mouse),
                control: control)
            try bus.ports.attach(
                keyboard.dataPort, name: "i8042 data",
                at: PlatformLayout.Port.keyboardData...PlatformLayout.Port.keyboardData)
            try bus.ports.attach(
                keyboard.commandPort, name: "i8042 command",
                at: PlatformLayout.Port.keyboardCommand...PlatformLayout.Port.keyboardCommand)
            try bus.ports.attach(
                keyboard.systemControlA, name: "system control A",
                at: PlatformLayout.Port.systemControlA...PlatformLayout.Port.systemControlA)
            power = PowerManagement(sci: lines.isa(PlatformLayout.IRQ.sci), clock: clock, control: control)
            try bus.ports.attach(power, name: "power management", at: PlatformLayout.Port.powerManagement)
            let bridge = try Self.makeHostBridge(on: bus, lines: lines, control: control)
            virtio = try VirtioSlots(
                bus: bus, bridge: bridge, lines: lines, memory: machine.memory, interrupts: interrupts,
                // What the kernel takes shows in no trace.
                doorbells: configuration.trace.contains(.io) ? nil : engine.doorbells, log: log)
            for network in machine.networks { try virtio.add(network, cpuCount: configuration.cpuCount) }
            for disk in machine.disks { try virtio.add(disk, cpuCount: configuration.cpuCount) }
            for share in machine.shares { try virtio.add(share) }
            let panic = PVPanic(control: control) {
                log.write(.info, "the guest has panicked and runs its crash kernel")
            }
            try bus.ports.attach(panic, name: "pvpanic", at: PlatformLayout.Port.pvpanic...PlatformLayout.Port.pvpanic)

            // COM1 and COM3 share a line, and so do COM2 and COM4.
            let shared = [
                SharedIRQLine(lines.isa(PlatformLayout.IRQ.com1)), SharedIRQLine(lines.isa(PlatformLayout.IRQ.com2)),
            ]
            var channels = channels[...]
            for (number, channel) in machine.serialChannels.enumerated() {
                let port = UART16550(
                    irq: shared[number % 2].makeEnd(), channel: channel == nil ? nil : channels.removeFirst(),
                    clock: clock)
                try bus.ports.attach(port, name: "com\(number + 1)", at: PlatformLayout.Port.serial[number])
                serialPorts.append(port)
            }
            if !machine.consoleChannels.isEmpty {
                let ports = zip(machine.consoleChannels, channels).map {
                    VirtioConsole.Port(name: $0.name, channel: $1)
                }
                let console = VirtioConsole(name: "console", ports: ports)
                try virtio.add(console, .pci)
                machine.terminalSize?.observe { [weak console] in console?.setSize($0) }
            }
        } catch {
            throw MachineError(.configuration, "the machine's own devices do not fit together: \(error)")
        }
        self.clock = clock
        self.control = control
        self.serialPorts = serialPorts
        for device in configuration.devices {
            try Catalog.devices.make(
                device,
                DeviceContext(
                    bus: bus, control: control, clock: clock, memory: machine.memory, virtio: virtio,
                    wasResetByWatchdog: cause == .watchdog, isHeld: { [isHeld = machine.isHeld] in isHeld.isSet },
                    log: log))
        }
    }

    /// A break on the first serial line, as from a terminal's Break key.
    func sendBreak() { serialPorts.first?.receiveBreak() }

    func pressPowerButton() { power.pressPowerButton() }

    /// Cuts the board off from what outlives it, when its vCPUs have stopped: when it returns no other thread is in the board any more,
    /// and nothing comes from it, or reaches it.
    func detach() {
        control.detach()
        clock.shutDown()
        virtio.detach()
        for port in serialPorts { port.flush() }
        terminalSize?.observe(nil)
        for channel in channels { channel.detach() }
        socket?.connect(nil)
    }

    /// Has another engine go on with the guest, whose vCPUs have stopped. Throws, and leaves all as it was, if it cannot.
    mutating func change(to choice: ComponentChoice) throws(MachineError) {
        guard let socket, engineParts.features == .baseline else {
            throw MachineError(
                .configuration,
                "a machine changes its engine if it was started with --cpu baseline, and with --engine soft or kvm,irqchip=split"
            )
        }
        let next = try Catalog.engines.make(choice, engineParts)
        guard case .localAPICs(let apics) = next.interrupts else {
            throw MachineError(
                .configuration, "--engine \(choice) has interrupt controllers of its own; add irqchip=split")
        }
        socket.hold()
        for (old, new) in zip(engine.vcpus, next.vcpus) {
            do throws(InvalidVCPUState) {
                try new.restore(old.saveState())
            } catch {
                socket.release()
                throw MachineError(.host, "--engine \(choice) does not take vCPU \(old.index) over: \(error)")
            }
        }
        socket.plug(apics)
        engine = next
    }
}
