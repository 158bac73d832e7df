import Glibc
import HostLinux

/// A serial line on the process's standard input and output.
public enum StandardStreams {
    /// Standard input is taken over as a terminal, raw, if it is one and this job is in the foreground; a terminal in the
    /// background is left alone. `onCommand` is called for keys after Ctrl-A.
    public static func open(
        loop: EventLoop, onCommand: @escaping @Sendable (ConsoleCommand) -> Void,
        onOutputFailure: @escaping @Sendable (SystemError) -> Void
    ) throws(SystemError) -> StreamChannel {
        guard Terminal.isTerminal(STDIN_FILENO) else {
            // A closed standard input reads as an error: nothing comes in.
            let isOpen = fcntl(STDIN_FILENO, F_GETFD) >= 0
            return try StreamChannel(
                loop: loop, input: isOpen ? STDIN_FILENO : nil, output: STDOUT_FILENO, onOutputFailure: onOutputFailure)
        }
        guard Terminal.isInForeground(STDIN_FILENO) else {
            return try StreamChannel(
                loop: loop, input: nil, output: STDOUT_FILENO, onOutputFailure: onOutputFailure)
        }
        try Terminal.makeRaw(STDIN_FILENO)
        return try StreamChannel(
            loop: loop, input: STDIN_FILENO, output: STDOUT_FILENO, onCommand: onCommand,
            onOutputFailure: onOutputFailure)
    }
}
