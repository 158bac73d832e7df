import Glibc
import HostLinux
import MachineModel
import Synchronization

/// A serial line's far end on host descriptors: a terminal, a pipe or a file.
///
/// When the reader is slow and 1 MiB is on its way, output is refused until there is room. Input waits for the guest, too; of a
/// terminal's, what the guest leaves lying beyond 64 KiB is dropped, so that Ctrl-A is still noticed.
public final class StreamChannel: ConsoleChannel {
    private struct Input {
        var pending: [UInt8] = []
        var escape = EscapeSequence()
    }

    /// Who is told when refused bytes would be taken.
    private final class Writable: Sendable {
        /// Guards the callback. Held while it is called, so that it is not under way any more when it has been replaced.
        let callback = Mutex(Callback())

        /// A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
        struct Callback: Sendable {
            var call: (@Sendable () -> Void)?
        }

        func tell() { callback.withLock { $0.call?() } }
    }

    private static let inputLimit = 1 << 16

    private let loop: EventLoop
    private let inputDescriptor: Int32?
    private let output: OutputQueue
    /// Set for a terminal: keys after Ctrl-A go here.
    private let onCommand: (@Sendable (ConsoleCommand) -> Void)?
    /// Guards the receiver. Held while it is called, so that it is not under way any more when it has been replaced.
    private let receiver = Mutex(Receiver())

    /// As `Callback`.
    private struct Receiver: Sendable {
        var call: (@Sendable (UnsafeRawBufferPointer) -> Int)?
    }
    /// Guards what came in; not held while the receiver is called. Only the loop's thread takes bytes out.
    private let input = Mutex(Input())
    private let writable = Writable()

    /// Descriptors stay open as long as the process; `input` nil means that nothing ever comes in. `onOutputFailure` is told once
    /// when nothing more can be written.
    public init(
        loop: EventLoop, input: Int32?, output: Int32, onCommand: (@Sendable (ConsoleCommand) -> Void)? = nil,
        onOutputFailure: @escaping @Sendable (SystemError) -> Void
    ) throws(SystemError) {
        self.loop = loop
        self.inputDescriptor = input
        self.onCommand = onCommand
        let writable = writable
        self.output = try OutputQueue(descriptor: output, onRoom: { writable.tell() }, onFailure: onOutputFailure)
        if let input { try loop.watch(input) { [unowned self] in receive(from: input) } }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) -> Int {
        output.append(bytes) ? bytes.count : 0
    }

    public func onWritable(_ callback: (@Sendable () -> Void)?) { writable.callback.withLock { $0.call = callback } }

    public func onReceive(_ receiver: (@Sendable (UnsafeRawBufferPointer) -> Int)?) {
        self.receiver.withLock { $0.call = receiver }
        resumeReading()
    }

    public func resumeReading() {
        loop.perform { [weak self] in self?.deliver() }
    }

    public func hurry() { output.hurry() }

    public func close() {
        if let inputDescriptor { loop.forget(inputDescriptor) }
        receiver.withLock { $0.call = nil }
        output.flush()
        output.close()
    }

    private func receive(from descriptor: Int32) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = read(descriptor, &buffer, buffer.count)
        if count < 0 && (errno == EINTR || errno == EAGAIN) { return }
        guard count > 0 else {
            // End of file, or the terminal is gone; the guest goes on without input.
            loop.forget(descriptor)
            return
        }
        var commands: [ConsoleCommand] = []
        input.withLock { input in
            guard onCommand != nil else { return input.pending.append(contentsOf: buffer[..<count]) }
            for byte in buffer[..<count] {
                let taken = input.escape.take(byte)
                if let byte = taken.guest, input.pending.count < Self.inputLimit { input.pending.append(byte) }
                if let command = taken.command { commands.append(command) }
            }
        }
        for command in commands { obey(command) }
        deliver()
    }

    private func obey(_ command: ConsoleCommand) {
        if command == .help {
            let text = Array(("\n" + EscapeSequence().help).replacing("\n", with: "\r\n").utf8)
            _ = text.withUnsafeBytes { output.append($0) }
        } else {
            onCommand?(command)
        }
    }

    /// Offers the receiver what has come in. Loop's thread only.
    private func deliver() {
        let bytes = input.withLock { $0.pending }
        var isEmpty = bytes.isEmpty
        if !isEmpty {
            let taken = receiver.withLock { receiver in bytes.withUnsafeBytes { receiver.call?($0) ?? 0 } }
            isEmpty = input.withLock { input in
                input.pending.removeFirst(min(max(taken, 0), bytes.count))
                return input.pending.isEmpty
            }
        }
        if let inputDescriptor, onCommand == nil { loop.setEnabled(isEmpty, for: inputDescriptor) }
    }
}
