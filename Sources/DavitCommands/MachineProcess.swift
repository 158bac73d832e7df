import ArgumentParser
import Davit
import Glibc
import HostLinux
import MachineModel
import MachineStore
import Synchronization
import VMRuntime

/// The process that is a kept machine. Not for users: `MachineLauncher` starts it.
struct MachineProcess: ParsableCommand, CommandWithStatus {
    static let verb = "machine-process"
    static let configuration = CommandConfiguration(commandName: verb, shouldDisplay: false)

    @Argument var name: String
    @Flag var attached = false

    func status() throws -> Int32 {
        do {
            return try runLocked()
        } catch {
            let status = DavitCommand.status(of: error)
            Self.report(JSON(["error": .string("\(error)"), "status": .number(Int64(status))]))
            throw error
        }
    }

    private func runLocked() throws -> Int32 {
        for descriptor in [MachineLauncher.reportDescriptor, MachineLauncher.consoleDescriptor] {
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        }
        let store = try MachineStore()
        let machine = try store.find(name)
        let lock = try machine.lock()
        guard chdir(machine.configuration.directory) == 0 else {
            throw StoreError(
                "machine '\(name)' was made in '\(machine.configuration.directory)', and that directory cannot be entered (\(String(cString: strerror(errno))))"
            )
        }
        try machine.recordStart(time: Int64(time(nil)))
        let loop = try EventLoop(name: "davit-control")
        let console = try ConsoleServer(
            for: machine, loop: loop, first: attached ? MachineLauncher.consoleDescriptor : nil)
        dup2(console.far, STDIN_FILENO)
        dup2(console.far, STDOUT_FILENO)
        close(console.far)

        var end: EndRecord
        var control: ControlServer?
        var failure: (any Error)?
        do {
            let signals = try TerminationSignals()
            let switches = Switches()
            try loop.watch(signals.event.descriptor) { switches.signal(signals.event.drain()) }
            var (restarts, delay) = (0, 0)
            while true {
                let flags = try MachineFlags.parse(machine.configuration.arguments)
                let log = try flags.makeLog()
                let virtualMachine = try VirtualMachine(try Self.configuration(of: machine, flags), log: log)
                switches.hold(virtualMachine)
                if control == nil { control = try ControlServer(for: machine, loop: loop) { switches.obey($0) } }
                let start = time(nil)
                let outcome = try virtualMachine.run { Self.report(JSON(["running": .bool(true)])) }
                let (status, message) = ExitStatus.status(of: outcome)
                if let message { log.write(.error, message) }
                end = EndRecord(status: status, message: message, time: Int64(time(nil)))
                if case .stopped = outcome { break }
                guard !switches.isEnding, machine.configuration.restart.continues(after: status, restarts: restarts)
                else { break }
                delay = RestartPolicy.delay(after: delay, ranFor: Int64(time(nil) - start))
                switches.hold(nil)
                guard switches.wait(milliseconds: delay) else { break }
                restarts += 1
                log.write(.warning, "machine '\(machine.name)' begins again, restart \(restarts)")
                try machine.recordStart(time: Int64(time(nil)), restarts: restarts)
            }
        } catch {
            failure = error
            end = EndRecord(status: DavitCommand.status(of: error), message: "\(error)", time: Int64(time(nil)))
        }
        // The serial line's last words: its end in this process is closed, and the loop no longer reads.
        close(STDIN_FILENO)
        close(STDOUT_FILENO)
        loop.stop()
        console.finish()
        try? machine.record(end)
        control?.close(end)
        if failure == nil { Self.report(JSON(["end": end.json])) }
        if machine.configuration.isRemovedAtEnd { try store.remove(machine, holding: lock) }
        if let failure { throw failure }
        return end.status
    }

    private static func configuration(
        of machine: MachineDirectory, _ flags: MachineFlags
    ) throws -> VirtualMachineConfiguration {
        let hasImage = machine.configuration.image != nil
        let disk = machine.path + "/" + MachineDirectory.diskFile
        var configuration = try flags.makeConfiguration(rootDisk: hasImage ? disk : nil)
        if let seed = machine.seedDisk {
            configuration.disks.append(
                ComponentChoice("image", settings: ["path": seed, "format": "raw", "readonly": "on"]))
        }
        // The way to the agent. Linux has one vsock at most.
        if hasImage && !configuration.devices.contains(where: { $0.name == "vsock" }) {
            // However long the directory's path is, a socket's must be short. Open as long as this process lives.
            let place = open(machine.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard place >= 0 else { throw StoreError("'\(machine.path)' is gone") }
            configuration.devices.append(
                ComponentChoice("vsock", settings: ["path": "/proc/self/fd/\(place)/\(GuestSocket.name)"]))
        }
        return configuration
    }

    /// Tells the launcher, if it is still there.
    private static func report(_ json: JSON) {
        let bytes = Array((json.description + "\n").utf8)
        _ = write(MachineLauncher.reportDescriptor, bytes, bytes.count)
    }
}

/// What the control socket's clients can do to a machine, run after run.
private final class Switches: Sendable {
    private struct State {
        /// nil between two runs.
        var machine: VirtualMachine?
        var isPaused = false
        /// The user wants it to end: no run follows.
        var isEnding = false
        /// How the last change of engines ended.
        var lastChange = "changed"
    }

    /// Guards what is asked for and whom it is asked of.
    private let state = Mutex(State())

    /// What is asked for from here on concerns this run.
    func hold(_ machine: VirtualMachine?) {
        let isEnding = state.withLock { state in
            state.machine = machine
            state.isPaused = false
            return state.isEnding
        }
        if isEnding { machine?.requestStop() }
    }

    var isEnding: Bool { state.withLock { $0.isEnding } }

    /// True when the time is over; false as soon as the user wants an end.
    func wait(milliseconds: Int) -> Bool {
        for _ in 0..<max(milliseconds / 50, 1) {
            if isEnding { return false }
            usleep(50_000)
        }
        return !isEnding
    }

    /// A signal to the process stops the machine.
    func signal(_ number: UInt64) {
        guard number > 0 else { return }
        end()?.requestStop(bySignal: Int32(truncatingIfNeeded: number))
    }

    private var machine: VirtualMachine? { state.withLock { $0.machine } }

    private func end() -> VirtualMachine? {
        state.withLock { state in
            state.isEnding = true
            return state.machine
        }
    }

    private func change(to engine: ComponentChoice) -> String {
        guard let machine else { return "it is about to begin again" }
        state.withLock { $0.lastChange = "changing" }
        machine.change(to: engine) { [self] failure in
            state.withLock { $0.lastChange = failure?.description ?? "changed" }
        }
        return "changing"
    }

    func obey(_ request: ControlRequest) -> String {
        switch request {
        case .status, .wait: break
        case .powerButton: end()?.pressPowerButton()
        case .kill: end()?.requestStop()
        case .sendBreak: machine?.sendBreak()
        case .useSoft: return change(to: ComponentChoice("soft"))
        case .useKVM: return change(to: ComponentChoice("kvm", settings: ["irqchip": "split"]))
        case .change: return state.withLock { $0.lastChange }
        case .pause:
            state.withLock { $0.isPaused = $0.machine != nil }
            machine?.pause()
        case .resume:
            state.withLock { $0.isPaused = false }
            machine?.resume()
        }
        return state.withLock { $0.isPaused } ? "paused" : "running"
    }
}
