import Chipset
import DeviceBus
import MachineModel

/// What a device needs of the board around it.
public struct DeviceContext: Sendable {
    let bus: SystemBus
    let control: any MachineControl
    let clock: any VMClock
}

extension Catalog {
    /// Devices beyond those that every machine has.
    public static let devices = CatalogSection<DeviceContext, Void>(
        flag: "--device",
        entries: [
            CatalogEntry(
                "debug-exit", summary: "a port whose write ends the machine with status (value << 1) | 1",
                options: [.number("port", "which port", defaultValue: "0xf4", upTo: 0xFFFC)]
            ) { (settings, context) throws(MachineError) in
                let first = UInt16(settings.number("port"))
                do throws(BusError) {
                    try context.bus.ports.attach(
                        DebugExit(control: context.control), name: "debug-exit",
                        at: first...first + (DebugExit.defaultSize - 1))
                } catch {
                    throw MachineError(.configuration, "--device debug-exit: \(error); give another port")
                }
            }
        ])
}
