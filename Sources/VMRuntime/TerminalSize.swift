import Glibc
import HostLinux
import Synchronization
import VirtioDevices

/// The size of the terminal on standard input, for the console that leads there, while boards come and go.
final class TerminalSize: Sendable {
    private struct Observer: Sendable {
        var call: (@Sendable (VirtioConsole.Size) -> Void)?
    }

    /// Guards who is told; held while they are.
    private let observer = Mutex(Observer())

    /// Nil if standard input is no terminal.
    init?(_ loop: EventLoop) throws(SystemError) {
        guard Terminal.size(STDIN_FILENO) != nil else { return nil }
        let changes = try TerminalSizeChanges()
        try loop.watch(changes.event.descriptor) { [weak self] in
            _ = changes.event.drain()
            self?.tell()
        }
    }

    /// Tells of the size at once, and whenever it changes.
    func observe(_ body: (@Sendable (VirtioConsole.Size) -> Void)?) {
        observer.withLock { $0.call = body }
        tell()
    }

    private func tell() {
        guard let size = Terminal.size(STDIN_FILENO) else { return }
        observer.withLock { $0.call?((size.rows, size.columns)) }
    }
}
