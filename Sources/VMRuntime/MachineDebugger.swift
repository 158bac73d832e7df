import GDBServer
import Glibc
import GuestMemory
import HostLinux
import MachineModel

/// `--gdb` as it was written.
struct DebuggerChoice {
    let address: GDBAddress
    /// No vCPU runs before the debugger lets it.
    let waits: Bool

    init(_ choice: ComponentChoice) throws(MachineError) {
        guard let address = GDBAddress(parsing: choice.name) else {
            throw MachineError(
                .configuration,
                "--gdb '\(choice.name)' is no address; write PORT, IP:PORT or unix:PATH, for instance 127.0.0.1:1234")
        }
        self.address = address
        if let unknown = choice.settings.keys.sorted().first(where: { $0 != "wait" }) {
            throw MachineError(.configuration, "--gdb has no setting '\(unknown)'; it has wait=on|off")
        }
        switch choice.settings["wait"] {
        case nil, "on": waits = true
        case "off": waits = false
        case let other?: throw MachineError(.configuration, "--gdb: wait=\(other) is neither on nor off")
        }
    }

    func listen(
        loop: EventLoop, deliver: @escaping @Sendable (GDBListener.Event) -> Void
    ) throws(MachineError) -> GDBListener {
        do throws(SystemError) {
            return try GDBListener(address, loop: loop, deliver: deliver)
        } catch {
            let isTaken = error.code == EADDRINUSE
            throw MachineError(
                .host,
                "--gdb \(address): \(isTaken ? "something else has this address" : "\(error)"); choose another one")
        }
    }
}

/// The debugger's part in the run loop, on whose thread alone it is used.
final class MachineDebugger {
    private let listener: GDBListener
    private var session: GDBSession
    private var waits: Bool
    /// Watchpoints that vCPUs met while another one's stop was told.
    private var late: [(vcpu: Int, reason: DebugStop)] = []

    init(_ listener: GDBListener, memory: GuestMemory, waits: Bool) {
        self.listener = listener
        self.waits = waits
        session = GDBSession(memory: memory)
    }

    /// What the user should know who sees no guest start.
    var notice: String? {
        waits ? "the machine waits for a debugger: gdb -ex 'target remote \(listener.address)'" : nil
    }

    var isKilled: Bool { session.isKilled }

    func use(_ vcpus: [any VCPU]) { session.use(vcpus) }

    /// The vCPU may run.
    func lets(_ vcpu: Int) -> Bool { !waits && session.isRunning && session.resumed.contains(vcpu) }

    /// `stop` stops vCPUs, and gives those that have stopped for the debugger besides.
    func take(_ event: GDBListener.Event, stop: () -> [(vcpu: Int, reason: DebugStop)]) {
        switch event {
        case .connected:
            _ = stop()
            waits = false
            late = []
            session.begin()
        case .received(let bytes):
            listener.send(session.receive(bytes) { keep(stop()) })
            // It may have let go of breakpoints that vCPUs have met since.
            if session.isRunning { tellLate() }
            listener.readOn()
        case .disconnected:
            _ = stop()
            late = []
            session.end()
        }
    }

    func didStop(vcpu: Int, _ reason: DebugStop, late: [(vcpu: Int, reason: DebugStop)]) {
        keep(late)
        listener.send(session.didStop(vcpu: vcpu, reason))
    }

    /// Breakpoints are met again; a watchpoint's access is done.
    func keep(_ stops: [(vcpu: Int, reason: DebugStop)]) {
        late += stops.filter { if case .watchpoint = $0.reason { true } else { false } }
    }

    private func tellLate() {
        let due = late.first { stop in
            guard session.resumed.contains(stop.vcpu), case .watchpoint(let watchpoint) = stop.reason else {
                return false
            }
            return session.wants(watchpoint)
        }
        late = late.filter { stop in
            due.map { $0.vcpu != stop.vcpu } ?? true && session.resumed.contains(stop.vcpu) == false
        }
        guard let due else { return }
        listener.send(session.didStop(vcpu: due.vcpu, due.reason))
    }

    func close() {
        listener.send(session.didEnd())
        listener.close()
    }
}
