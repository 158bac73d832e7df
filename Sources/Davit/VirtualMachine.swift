import HostLinux
import Synchronization
import VMRuntime

/// A virtual machine: made from a configuration, started once.
///
///     let machine = try VirtualMachine(configuration)
///     try await machine.start()
///     let outcome = try await machine.outcome
public final class VirtualMachine: Sendable {
    public enum State: Equatable, Sendable {
        case ready
        case running
        case ended
    }

    private struct Progress {
        var state = State.ready
        var result: Result<MachineOutcome, MachineError>?
        var waiting: [CheckedContinuation<MachineOutcome, any Error>] = []
    }

    private let machine: Machine
    /// Guards how far the machine has come.
    private let progress = Mutex(Progress())

    /// Takes the host's resources: memory, serial attachments. Lines for the user go to `log`.
    public init(_ configuration: VirtualMachineConfiguration, log: Log = Log()) throws(MachineError) {
        machine = try Machine(configuration.machine, log: log)
    }

    public var state: State { progress.withLock { $0.state } }

    /// Starts the guest on threads of its own. To be called once.
    public func start() throws(MachineError) {
        do throws(SystemError) {
            _ = try HostThread(name: "davit-machine") { [self] in _ = try? run() }
        } catch {
            throw MachineError(.host, "the machine gets no thread: \(error)")
        }
    }

    /// Runs the guest until it ends, while the calling thread waits. To be called once, instead of `start`. `onStart` is called when
    /// the kernel has been loaded.
    public func run(onStart: () -> Void = {}) throws(MachineError) -> MachineOutcome {
        progress.withLock { $0.state = .running }
        let result: Result<MachineOutcome, MachineError>
        do throws(MachineError) { result = .success(try machine.run(onStart: onStart)) } catch {
            result = .failure(error)
        }
        let waiting = progress.withLock { progress in
            progress.state = .ended
            progress.result = result
            let waiting = progress.waiting
            progress.waiting = []
            return waiting
        }
        for continuation in waiting { continuation.resume(with: result) }
        return try result.get()
    }

    /// How the run ended; waits for its end.
    public var outcome: MachineOutcome {
        get async throws {
            try await withCheckedThrowingContinuation { continuation in
                let result = progress.withLock { progress in
                    if progress.result == nil { progress.waiting.append(continuation) }
                    return progress.result
                }
                if let result { continuation.resume(with: result) }
            }
        }
    }

    /// Stops the guest as by pulling the plug, and waits for its end.
    @discardableResult
    public func stop() async throws -> MachineOutcome {
        requestStop()
        return try await outcome
    }

    /// Stops the guest as by pulling the plug, soon. Any thread may call.
    public func requestStop() { machine.requestStop(.requested) }

    /// Stops the guest as a signal does that ends a process. Any thread may call.
    public func requestStop(bySignal number: Int32) { machine.requestStop(.signal(number)) }

    /// Presses the power button: the guest is asked to shut down.
    public func pressPowerButton() { machine.pressPowerButton() }

    /// A break on the first serial port.
    public func sendBreak() { machine.sendBreak() }

    /// Stops the vCPUs, soon; the guest's clocks go on.
    public func pause() { machine.setPaused(true) }

    public func resume() { machine.setPaused(false) }

    /// Has another engine go on with the guest, soon, as the catalog knows it: `soft`, or `kvm` with `irqchip=split`. The machine must have
    /// begun with one of them, and with `ProcessorFeatures.baseline`. `done` is told what has prevented it; the guest then goes on as it was.
    public func change(to engine: ComponentChoice, done: @escaping @Sendable (MachineError?) -> Void) {
        machine.change(to: engine, done: done)
    }

    /// From here on SIGINT, SIGTERM, SIGHUP and SIGQUIT stop this machine, and a second one ends the process at once.
    /// For programs that are one machine; to be called at most once in a process.
    public func stopOnSignals() throws(MachineError) { try machine.stopOnSignals() }
}
