import CDavit
import Glibc
import Synchronization

/// The process's controlling terminal. Its mode belongs to the process, so there is one of it.
public enum Terminal {
    /// Guards that there is one guard.
    private static let sentry = Mutex<TerminalGuard?>(nil)

    public static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// True if this process may read the terminal and set its mode: its job is in the foreground.
    public static func isInForeground(_ descriptor: Int32) -> Bool { tcgetpgrp(descriptor) == getpgrp() }

    /// Its rows and columns; nil if it is no terminal, or has none to tell.
    public static func size(_ descriptor: Int32) -> (rows: UInt16, columns: UInt16)? {
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_row > 0, size.ws_col > 0 else { return nil }
        return (size.ws_row, size.ws_col)
    }

    /// From now on a change of the terminal's size interrupts what this process waits for.
    public static func noticeSizeChanges() { signal(SIGWINCH) { _ in } }

    /// True between `makeRaw` and `restore`.
    public static var isRaw: Bool { davit_terminal_is_raw() }

    /// Passes every key on as a byte, without echo. It is put back by `restore`, and on every way out of the process.
    public static func makeRaw(_ descriptor: Int32) throws(SystemError) {
        var cooked = termios()
        var raw = termios()
        guard tcgetattr(descriptor, &cooked) == 0 else { throw SystemError("tcgetattr") }
        guard davit_terminal_make_raw(descriptor) == 0 else { throw SystemError("tcsetattr") }
        tcgetattr(descriptor, &raw)
        sentry.withLock { $0 = TerminalGuard(descriptor, cooked: cooked, raw: raw) }
    }

    /// Puts the terminal back as it was before `makeRaw`; harmless without one.
    public static func restore() {
        davit_terminal_restore()
        sentry.withLock { $0.take()?.dismiss() }
    }
}

/// Changes of the controlling terminal's size (SIGWINCH).
public final class TerminalSizeChanges: Sendable {
    public let event: EventFD

    /// Installs the handler, for the life of the process.
    public init() throws(SystemError) {
        event = try EventFD()
        // The handler uses the descriptor until the process ends: it is never closed.
        _ = Unmanaged.passRetained(event)
        guard davit_terminal_watch_size(event.descriptor) == 0 else { throw SystemError("sigaction") }
    }
}

/// Requests from outside to end: SIGINT, SIGTERM, SIGHUP and SIGQUIT.
public final class TerminationSignals: Sendable {
    /// Counts up by the signal's number.
    public let event: EventFD

    /// Installs the handlers, for the life of the process. A second signal ends the process at once. SIGPIPE is ignored
    /// from here on: writing to a pipe without reader fails with EPIPE.
    public init() throws(SystemError) {
        event = try EventFD()
        // The handlers use the descriptor until the process ends: it is never closed.
        _ = Unmanaged.passRetained(event)
        guard davit_signals_watch(event.descriptor) == 0 else { throw SystemError("sigaction") }
    }
}
