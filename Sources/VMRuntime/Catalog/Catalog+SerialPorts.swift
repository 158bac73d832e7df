import ConsoleBackends
import Glibc
import HostLinux
import MachineModel

/// What a serial port's far end needs of the machine around it.
public struct SerialPortContext: Sendable {
    let loop: EventLoop
    let onCommand: @Sendable (ConsoleCommand) -> Void
    let onOutputFailure: @Sendable (SystemError) -> Void
}

extension Catalog {
    /// What a serial port can be plugged into; nil is nothing.
    public static let serialPorts = CatalogSection<SerialPortContext, StreamChannel?>(
        flag: "--serial",
        entries: [
            CatalogEntry("stdio", summary: "standard input and output; a terminal is raw while the guest runs") {
                (_, context) throws(MachineError) in
                do throws(SystemError) {
                    return try StandardStreams.open(
                        loop: context.loop, onCommand: context.onCommand, onOutputFailure: context.onOutputFailure)
                } catch {
                    throw MachineError(.host, "--serial stdio: \(error)")
                }
            },
            CatalogEntry(
                "file", summary: "output is written to a file, from its beginning; there is no input",
                options: [.path("path", "where to write")]
            ) { (settings, context) throws(MachineError) in
                let path = settings.text("path")
                let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
                guard descriptor >= 0 else {
                    let reason = String(cString: strerror(errno))
                    throw MachineError(
                        .file, "--serial file: cannot write to '\(path)' (\(reason)); give a file that you may write to"
                    )
                }
                do throws(SystemError) {
                    return try StreamChannel(
                        loop: context.loop, input: nil, output: descriptor, onOutputFailure: context.onOutputFailure)
                } catch {
                    throw MachineError(.host, "--serial file: \(error)")
                }
            },
            CatalogEntry("none", summary: "nothing is plugged in") { (_, _) throws(MachineError) in nil },
        ])
}
