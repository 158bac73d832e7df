import Glibc
import HostLinux

/// A program in the guest, from the host's side: its streams are descriptors of this process.
public struct GuestSession {
    public enum End: Equatable, Sendable {
        /// Its exit status; 128 and the signal's number if a signal ended it.
        case exited(Int32)
        /// It was not started: the status that a shell has for that, and why.
        case failed(Int32, String)
        /// The guest, or its agent, is gone.
        case lost
        /// Nobody takes the output any more, or it is more than was asked for.
        case outputClosed
        /// The command is more than can be sent.
        case tooLong
    }

    /// The agent's program: for a Perl with core modules alone, and a descriptor 3 that listens.
    public static var agent: [UInt8] { PackageResources.agent_pl }
    /// The vsock port that the agent's socket unit listens on.
    public static let port: UInt32 = 1024

    /// What may be under way to the program, in bytes.
    private static let inputLimit = 256 << 10
    private static let chunk = 32 << 10

    private let connection: Int32
    private let command: GuestCommand
    /// nil for no input at all.
    private let input: Int32?
    private let output: Int32
    private let errorOutput: Int32
    /// The terminal whose size the program's follows.
    private let sizeSource: Int32?
    /// Counts up by the numbers of signals that the program is to get.
    private let signals: EventFD?
    /// For a program that is not waited for long: how many milliseconds may pass without a word from it, and how much it may say, in bytes.
    private let patience: Int32?
    private var outputLeft: Int

    /// `connection` leads to the agent's port, and is closed by its owner.
    public init(
        _ command: GuestCommand, over connection: Int32, input: Int32?, output: Int32, errorOutput: Int32,
        sizeSource: Int32? = nil, signals: EventFD? = nil, patience: Int32? = nil, maximumOutput: Int = .max
    ) {
        self.connection = connection
        self.command = command
        self.input = input
        self.output = output
        self.errorOutput = errorOutput
        self.sizeSource = sizeSource
        self.signals = signals
        self.patience = patience
        outputLeft = maximumOutput
    }

    /// Runs the program to its end.
    public mutating func run() -> End {
        var command = command
        if let size = sizeSource.flatMap(Terminal.size) {
            command.terminalSize = TerminalSize(rows: size.rows, columns: size.columns)
        }
        guard let request = command.request, request.count <= GuestFrame.maximumSize else { return .tooLong }
        send(GuestFrame.request, request)
        var size = command.terminalSize
        var hasInput = input != nil
        if !hasInput { send(GuestFrame.input, []) }
        var credit = Self.inputLimit
        var frames = GuestFrameReader()
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            var waits = [
                pollfd(fd: connection, events: Int16(POLLIN), revents: 0),
                pollfd(fd: hasInput && credit > 0 ? input ?? -1 : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: signals?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
            ]
            let count = poll(&waits, nfds_t(waits.count), patience ?? -1)
            // A terminal that changes its size interrupts the wait.
            if let now = sizeSource.flatMap(Terminal.size).map(TerminalSize.init), now != size {
                size = now
                send(GuestFrame.size, Array("\(now)".utf8))
            }
            if count == 0 { return .lost }
            guard count > 0 else { continue }
            if waits[2].revents != 0, let signals, let name = Self.name(of: signals.drain()) {
                send(GuestFrame.signal, Array(name.utf8))
            }
            if waits[1].revents != 0, let input {
                let count = read(input, &buffer, min(Self.chunk, credit))
                if count >= 0 || errno != EINTR && errno != EAGAIN {
                    hasInput = count > 0
                    credit -= max(count, 0)
                    send(GuestFrame.input, buffer[..<max(count, 0)])
                }
            }
            guard waits[0].revents != 0 else { continue }
            let received = recv(connection, &buffer, buffer.count, 0)
            if received < 0 && errno == EINTR { continue }
            guard received > 0 else { return .lost }
            frames.append(buffer[..<received])
            if let end = take(&frames, &credit) { return end }
        }
    }

    /// Everything that has come; the end, if that has.
    private mutating func take(_ frames: inout GuestFrameReader, _ credit: inout Int) -> End? {
        do throws(GuestFrameReader.Nonsense) {
            while let (kind, contents) = try frames.next() {
                switch kind {
                case GuestFrame.output, GuestFrame.errorOutput:
                    outputLeft -= contents.count
                    guard outputLeft >= 0, write(contents, to: kind == GuestFrame.output ? output : errorOutput) else {
                        return .outputClosed
                    }
                case GuestFrame.credit:
                    let more = Int(GuestFrame.number(contents) ?? 0)
                    credit = min(credit + more, Self.inputLimit)
                case GuestFrame.exit:
                    return .exited(Int32(truncatingIfNeeded: GuestFrame.number(contents) ?? 0) & 0xFF)
                case GuestFrame.failure:
                    let status = Int32(truncatingIfNeeded: GuestFrame.number(contents) ?? 0) & 0xFF
                    return .failed(status, Self.printable(contents.dropFirst(4)))
                default: return .lost
                }
            }
            return nil
        } catch {
            return .lost
        }
    }

    /// The guest's words for the user's terminal: nothing that steers it.
    private static func printable(_ bytes: ArraySlice<UInt8>) -> String {
        String(
            String.UnicodeScalarView(
                String(decoding: bytes.prefix(1024), as: UTF8.self).unicodeScalars.map {
                    $0.properties.generalCategory == .control ? "?" : $0
                }))
    }

    private static func name(of signal: UInt64) -> String? {
        switch Int32(truncatingIfNeeded: signal) {
        case SIGINT: "INT"
        case SIGTERM: "TERM"
        case SIGHUP: "HUP"
        case SIGQUIT: "QUIT"
        default: nil
        }
    }

    /// What a guest that is gone does not take is dropped: the end that it has told of, or not, is still to be read.
    private func send(_ kind: UInt8, _ contents: some Collection<UInt8>) {
        var rest = GuestFrame.bytes(kind, contents)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            if count < 0 && errno != EINTR { return }
            rest = rest.dropFirst(max(count, 0))
        }
    }

    private func write(_ bytes: ArraySlice<UInt8>, to descriptor: Int32) -> Bool {
        var rest = bytes
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EAGAIN {
                // Somebody has made the user's terminal one that does not wait.
                var room = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&room, 1, -1)
            } else if count < 0 && errno != EINTR {
                return false
            }
            rest = rest.dropFirst(max(count, 0))
        }
        return true
    }
}
