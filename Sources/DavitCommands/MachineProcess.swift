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

        let end: EndRecord
        var control: ControlServer?
        var failure: (any Error)?
        do {
            let flags = try MachineFlags.parse(machine.configuration.arguments)
            let log = try flags.makeLog()
            let virtualMachine = try VirtualMachine(try Self.configuration(of: machine, flags), log: log)
            try virtualMachine.stopOnSignals()
            let switches = Switches(virtualMachine)
            control = try ControlServer(for: machine, loop: loop) { switches.obey($0) }
            let outcome = try virtualMachine.run { Self.report(JSON(["running": .bool(true)])) }
            let (status, message) = ExitStatus.status(of: outcome)
            if let message { log.write(.error, message) }
            end = EndRecord(status: status, message: message, time: Int64(time(nil)))
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

/// What the control socket's clients can do to a machine.
private final class Switches: Sendable {
    private let machine: VirtualMachine
    private let isPaused = Atomic<Bool>(false)
    /// Guards how the last change of engines ended.
    private let lastChange = Mutex("changed")

    init(_ machine: VirtualMachine) { self.machine = machine }

    private func change(to engine: ComponentChoice) -> String {
        lastChange.withLock { $0 = "changing" }
        machine.change(to: engine) { [self] failure in lastChange.withLock { $0 = failure?.description ?? "changed" } }
        return "changing"
    }

    func obey(_ request: ControlRequest) -> String {
        switch request {
        case .status, .wait: break
        case .powerButton: machine.pressPowerButton()
        case .kill: machine.requestStop()
        case .sendBreak: machine.sendBreak()
        case .useSoft: return change(to: ComponentChoice("soft"))
        case .useKVM: return change(to: ComponentChoice("kvm", settings: ["irqchip": "split"]))
        case .change: return lastChange.withLock { $0 }
        case .pause:
            isPaused.store(true, ordering: .relaxed)
            machine.pause()
        case .resume:
            isPaused.store(false, ordering: .relaxed)
            machine.resume()
        }
        return isPaused.load(ordering: .relaxed) ? "paused" : "running"
    }
}
