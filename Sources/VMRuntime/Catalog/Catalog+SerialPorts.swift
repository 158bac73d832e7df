import ConsoleBackends
import Glibc
import HostLinux
import MachineModel

/// What the far end of a serial or console port needs of the machine around it.
public struct SerialPortContext: Sendable {
    let loop: EventLoop
    let onCommand: @Sendable (ConsoleCommand) -> Void
    let onOutputFailure: @Sendable (SystemError) -> Void
}

extension Catalog {
    /// What a serial port can be plugged into; nil is nothing.
    public static let serialPorts = streams("--serial")

    /// What a port of the virtio console leads to; nil is no port.
    public static let consolePorts = streams(
        "--console", .text(consoleName, "under which name programs in the guest find it; without one it is a console"))

    /// A console port's setting.
    static let consoleName = "name"

    private static func streams(
        _ flag: String, _ more: CatalogOption...
    ) -> CatalogSection<SerialPortContext, (any ConsoleChannel)?> {
        /// Makes the channel, or says what the host has against it.
        @Sendable func open(
            _ kind: String, _ make: () throws(SystemError) -> any ConsoleChannel
        ) throws(MachineError) -> any ConsoleChannel {
            do throws(SystemError) {
                return try make()
            } catch {
                throw MachineError(.host, "\(flag) \(kind): \(error)")
            }
        }
        return CatalogSection(
            flag: flag,
            entries: [
                CatalogEntry(
                    "stdio", summary: "standard input and output; a terminal is raw while the guest runs", options: more
                ) { (_, context) throws(MachineError) in
                    try open("stdio") { () throws(SystemError) in
                        try StandardStreams.open(
                            loop: context.loop, onCommand: context.onCommand, onOutputFailure: context.onOutputFailure)
                    }
                },
                CatalogEntry(
                    "file", summary: "output is written to a file, from its beginning; there is no input",
                    options: [.path("path", "where to write")] + more
                ) { (settings, context) throws(MachineError) in
                    let path = settings.text("path")
                    let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
                    guard descriptor >= 0 else {
                        let reason = String(cString: strerror(errno))
                        throw MachineError(
                            .file,
                            "\(flag) file: cannot write to '\(path)' (\(reason)); give a file that you may write to")
                    }
                    return try open("file") { () throws(SystemError) in
                        try StreamChannel(
                            loop: context.loop, input: nil, output: descriptor, onOutputFailure: context.onOutputFailure
                        )
                    }
                },
                CatalogEntry(
                    "socket", summary: "a Unix socket, for one program at a time",
                    options: [.path("path", "where it is")] + more
                ) { (settings, context) throws(MachineError) in
                    let path = settings.text("path")
                    do throws(SystemError) {
                        return try SocketChannel(loop: context.loop, path: path)
                    } catch {
                        throw MachineError(
                            .file, "\(flag) socket: cannot listen at '\(path)' (\(error)); give another path")
                    }
                },
                CatalogEntry("none", summary: "nothing is plugged in", options: more) { (_, _) throws(MachineError) in
                    nil
                },
            ])
    }
}
