import ACPITables
import BootLoaders
import ConsoleBackends
import GDBServer
import GuestMemory
import HostLinux
import MachineModel
import Synchronization

/// A PC with its guest: made from a configuration, run once.
///
/// It owns what outlives a reset: RAM, serial lines and the thread that serves them. The rest is a `Board`, built anew at each reset,
/// so that every chip wakes in its power-on state.
public final class Machine: Sendable {
    /// What the run loop waits for.
    enum Event: Sendable {
        case machine(MachineEvent)
        case vcpu(VCPUExit)
        case stop(StopReason)
        /// Break was pressed at the console.
        case sendBreak
        /// The power button was pressed.
        case powerButton
        /// vCPUs stop, or go on.
        case pause(Bool)
        /// Another engine is to go on.
        case change(ComponentChoice, @Sendable (MachineError?) -> Void)
        /// A vCPU has stopped for the debugger.
        case debugStop(vcpu: Int, DebugStop)
        case debugger(GDBListener.Event)
    }

    public let configuration: MachineConfiguration
    let log: Log
    /// What runs the guest: what the configuration names, or what `auto` comes to on this host.
    let engine: ComponentChoice
    /// Why `auto` has come to that, if users should know.
    let engineReason: String?
    let memory: GuestMemory
    /// The host's processor that each vCPU's thread runs on; empty if they run on any.
    let affinity: [Int]
    let loop: EventLoop
    /// What the user has given to boot; nil if it is on the first disk.
    let givenFiles: BootFiles?
    let serialChannels: [(any ConsoleChannel)?]
    /// With the names that the guest finds them by; empty for consoles.
    let consoleChannels: [(name: String, channel: any ConsoleChannel)]
    /// Of the terminal that a console leads to; nil if none does.
    let terminalSize: TerminalSize?
    let disks: [MachineDisk]
    let networks: [MachineNetwork]
    let shares: [MachineShare]
    let inbox: Inbox<Event>
    /// vCPUs stand, since the user or the debugger wants them to.
    let isHeld = SharedFlag()
    /// Where a debugger is waited for, and whether nothing runs before.
    let debugListener: (listener: GDBListener, waits: Bool)?

    /// Looks at everything that can be wrong, but for the kernel's contents. A terminal on standard input is raw from here to the end
    /// of `run`.
    public init(_ configuration: MachineConfiguration, log: Log) throws(MachineError) {
        try configuration.validate()
        self.configuration = configuration
        self.log = log
        let choice = EngineChoice(configuration.engine)
        engine = choice.engine
        engineReason = choice.reason
        do throws(BootError) {
            givenFiles = try configuration.kernel.map { path throws(BootError) in
                try BootFiles(kernel: path, configuration, log: log)
            }
        } catch {
            throw MachineError(error)
        }
        memory = try Catalog.memories.make(configuration.memory, configuration.memorySize)
        affinity = try Catalog.processors.make(configuration.processors, configuration.cpuCount)
        do throws(SystemError) {
            loop = try EventLoop(name: "davit-io")
            inbox = try Inbox()
        } catch {
            throw MachineError(.host, "the host refuses a machine's parts: \(error)")
        }
        var opened: [() -> Void] = []
        var isComplete = false
        defer { if !isComplete { for close in opened { close() } } }
        disks = try Self.openAll(configuration.disks, &opened, close: { $0.device.close() }) {
            (choice, number) throws(MachineError) in try Catalog.disks.make(choice, DiskContext(number: number))
        }
        networks = try Self.openAll(configuration.networks, &opened, close: { $0.close() }) {
            (choice, number) throws(MachineError) in
            try Catalog.networks.make(choice, NetworkContext(number: number, log: log))
        }
        shares = try Self.openAll(configuration.sharedFolders, &opened, close: { $0.server.close() }) {
            (folder, number) throws(MachineError) in try MachineShare(folder, number: number)
        }
        let (loop, inbox) = (loop, inbox)
        debugListener = try configuration.debugger.map { choice throws(MachineError) in
            let choice = try DebuggerChoice(choice)
            return (try choice.listen(loop: loop) { inbox.put(.debugger($0)) }, choice.waits)
        }
        let context = SerialPortContext(
            loop: loop,
            onCommand: { command in
                switch command {
                case .end: inbox.put(.stop(.requested))
                case .sendBreak: inbox.put(.sendBreak)
                case .help, .detach: break
                }
            },
            onOutputFailure: { inbox.put(.stop(.consoleLost("\($0)"))) })
        var channels: [(any ConsoleChannel)?] = []
        for port in configuration.serialPorts {
            channels.append(try Catalog.serialPorts.make(port, context))
            if let channel = channels.last ?? nil { opened.append { channel.close() } }
        }
        serialChannels = channels
        consoleChannels = try Self.openAll(configuration.consolePorts, &opened, close: { $0.channel.close() }) {
            (choice, _) throws(MachineError) in
            try Catalog.consolePorts.make(choice, context).map { (choice.settings[Catalog.consoleName] ?? "", $0) }
        }
        do throws(SystemError) {
            let isOnTerminal = configuration.consolePorts.contains { $0.name == "stdio" }
            terminalSize = isOnTerminal ? try TerminalSize(loop) : nil
        } catch {
            throw MachineError(.host, "the terminal's size cannot be watched: \(error)")
        }
        isComplete = true
    }

    /// Makes a part for each choice, nil for one that needs none; `number` counts the parts. What is to be closed should a later one fail is added
    /// to `opened`.
    private static func openAll<Choice, Part>(
        _ choices: [Choice], _ opened: inout [() -> Void], close: @escaping (Part) -> Void,
        make: (_ choice: Choice, _ number: Int) throws(MachineError) -> Part?
    ) throws(MachineError) -> [Part] {
        var parts: [Part] = []
        for choice in choices {
            guard let part = try make(choice, parts.count) else { continue }
            parts.append(part)
            opened.append { close(part) }
        }
        return parts
    }

    var allChannels: [any ConsoleChannel] { serialChannels.compactMap(\.self) + consoleChannels.map(\.channel) }

    /// Makes `run` end soon, whatever the guest does. Any thread may call.
    public func requestStop(_ reason: StopReason) { inbox.put(.stop(reason)) }

    /// Presses the power button: the guest is asked to shut down. Any thread may call.
    public func pressPowerButton() { inbox.put(.powerButton) }

    /// A break on the first serial line. Any thread may call.
    public func sendBreak() { inbox.put(.sendBreak) }

    /// Has another engine go on with the guest, soon. `done` is told, on the run loop's thread, what has prevented it; the guest then goes on as
    /// it was. Any thread may call.
    public func change(to engine: ComponentChoice, done: @escaping @Sendable (MachineError?) -> Void) {
        inbox.put(.change(EngineChoice(engine).engine, done))
    }

    /// Stops the vCPUs soon, or lets them go on. The guest's clocks go on all the while, as they do for a program that is stopped.
    /// Any thread may call.
    public func setPaused(_ isPaused: Bool) { inbox.put(.pause(isPaused)) }

    /// From here on SIGINT, SIGTERM, SIGHUP and SIGQUIT stop this machine. At most once in a process.
    public func stopOnSignals() throws(MachineError) {
        do throws(SystemError) {
            let signals = try TerminationSignals()
            try loop.watch(signals.event.descriptor) { [inbox] in
                let number = signals.event.drain()
                if number > 0 { inbox.put(.stop(.signal(Int32(truncatingIfNeeded: number)))) }
            }
        } catch {
            throw MachineError(.host, "signals cannot be watched: \(error)")
        }
    }
}
