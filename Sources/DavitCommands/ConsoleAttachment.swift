import ConsoleBackends
import Glibc
import HostLinux
import MachineStore

/// This process's standard streams as the console of a machine that another process runs.
enum ConsoleAttachment {
    /// The console of a machine that this process has started: returns the machine's exit status, or 0 if the user leaves it running.
    static func attach(to launch: MachineLaunch, of machine: MachineDirectory) throws -> Int32 {
        if let status = try copy(launch.console, machine) { return status }
        let end = launch.waitForEnd()
        if let message = end?.message ?? (end == nil ? "the machine's process was killed" : nil) {
            DavitCommand.complain(message)
        }
        return end?.status ?? 128 + SIGKILL
    }

    /// The console of a machine that runs already.
    static func attach(to machine: MachineDirectory) throws -> Int32 {
        guard let console = ConsoleClient.connect(to: machine) else {
            throw StoreError("machine '\(machine.name)' is not running; 'davit start \(machine.name)' starts it")
        }
        defer { close(console) }
        if Terminal.isTerminal(STDIN_FILENO) {
            DavitCommand.complain("Ctrl-A d leaves the console, Ctrl-A h lists other keys")
        }
        return try copy(console, machine) ?? 0
    }

    /// Copies until the machine has ended; an exit status if the user ends it before.
    private static func copy(_ console: Int32, _ machine: MachineDirectory) throws -> Int32? {
        let signals = try TerminationSignals()
        let isTerminal = Terminal.isTerminal(STDIN_FILENO) && Terminal.isInForeground(STDIN_FILENO)
        if isTerminal { try Terminal.makeRaw(STDIN_FILENO) }
        let leaving = copy(console, machine, keys: isTerminal, until: signals.event)
        Terminal.restore()
        switch leaving {
        case .signal(let number): return 128 + number
        case .detached:
            DavitCommand.complain("machine '\(machine.name)' goes on; 'davit console \(machine.name)' comes back to it")
            return 0
        case .ended: return nil
        }
    }

    private enum Leaving {
        case ended
        case detached
        case signal(Int32)
    }

    private static func copy(_ console: Int32, _ machine: MachineDirectory, keys: Bool, until signals: EventFD)
        -> Leaving
    {
        var escape = EscapeSequence(canDetach: true)
        var buffer = [UInt8](repeating: 0, count: 65536)
        var hasInput = true
        while true {
            var waits = [
                pollfd(fd: signals.descriptor, events: Int16(POLLIN), revents: 0),
                pollfd(fd: console, events: Int16(POLLIN), revents: 0),
                pollfd(fd: hasInput ? STDIN_FILENO : -1, events: Int16(POLLIN), revents: 0),
            ]
            guard poll(&waits, nfds_t(waits.count), -1) >= 0 else { continue }
            if waits[0].revents != 0 { return .signal(Int32(truncatingIfNeeded: signals.drain())) }
            if waits[1].revents != 0 {
                let count = read(console, &buffer, buffer.count)
                guard count > 0, writeAll(STDOUT_FILENO, buffer[..<count]) else { return .ended }
            }
            guard waits[2].revents != 0 else { continue }
            let count = read(STDIN_FILENO, &buffer, 4096)
            guard count > 0 else {
                hasInput = count < 0 && errno == EINTR
                continue
            }
            guard keys else {
                if !writeAll(console, buffer[..<count]) { return .ended }
                continue
            }
            var typed: [UInt8] = []
            for byte in buffer[..<count] {
                let taken = escape.take(byte)
                if let byte = taken.guest { typed.append(byte) }
                switch taken.command {
                case .detach: return .detached
                case .end: _ = ControlClient(machine)?.ask(.kill)
                case .sendBreak: _ = ControlClient(machine)?.ask(.sendBreak)
                case .help:
                    _ = writeAll(STDOUT_FILENO, ArraySlice(("\n" + escape.help).replacing("\n", with: "\r\n").utf8))
                case nil: break
                }
            }
            if !writeAll(console, typed[...]) { return .ended }
        }
    }

    private static func writeAll(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno != EINTR { return false }
            rest = rest.dropFirst(max(count, 0))
        }
        return true
    }
}
