import Chipset
import DeviceBus
import GuestMemory
import HostLinux
import MachineModel
import VirtioDevices
import VirtioQueue

/// What a device needs of the board around it.
public struct DeviceContext: Sendable {
    let bus: SystemBus
    let control: any MachineControl
    let clock: any VMClock
    let memory: GuestMemory
    let virtio: VirtioSlots
    /// The machine was reset by it just now.
    let wasResetByWatchdog: Bool
    /// vCPUs stand because the user wants them to.
    let isHeld: @Sendable () -> Bool
    let log: Log

    /// Puts a virtio device on the board.
    fileprivate func add(
        _ device: any VirtioDevice, _ settings: ComponentSettings, close: @escaping @Sendable () -> Void = {}
    ) throws(MachineError) {
        do {
            try virtio.add(device, settings.transport, close: close)
        } catch {
            throw MachineError(.configuration, "--device \(device.name): \(error)")
        }
    }
}

extension Catalog {
    static let watchdog = "watchdog"

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
            },
            CatalogEntry(
                watchdog, summary: "a watchdog timer, which Linux's wdat_wdt drives",
                options: [
                    .choice(
                        "action", "what becomes of a guest that does not reload it (reset, poweroff)",
                        defaultValue: "reset", of: ["reset", "poweroff"])
                ]
            ) { (settings, context) throws(MachineError) in
                let resets = settings.text("action") == "reset"
                let device = Watchdog(
                    clock: context.clock, hasExpired: context.wasResetByWatchdog, isHeld: context.isHeld
                ) { [control = context.control, log = context.log] in
                    log.write(
                        .warning,
                        "the guest's watchdog has expired: \(resets ? "the machine starts over" : "the machine is switched off")"
                    )
                    control.report(resets ? .reset(.watchdog) : .powerOff)
                }
                do throws(BusError) {
                    try context.bus.ports.attach(device, name: watchdog, at: PlatformLayout.Port.watchdog)
                } catch {
                    throw MachineError(.configuration, "--device watchdog: \(error); give it once")
                }
            },
            CatalogEntry("entropy", summary: "random bytes of the host's", options: [.transport]) {
                (settings, context) throws(MachineError) in
                try context.add(VirtioEntropy(name: "entropy"), settings)
            },
            CatalogEntry(
                "balloon", summary: "gives memory that the guest does not use back to the host",
                options: [
                    .number("size", "how many MiB the guest is asked for", defaultValue: "0", upTo: 1 << 24),
                    .transport,
                ]
            ) { (settings, context) throws(MachineError) in
                let balloon = VirtioBalloon(name: "balloon", memory: context.memory)
                try context.add(balloon, settings)
                balloon.setTarget(settings.number("size") << 20)
            },
            CatalogEntry(
                "vsock", summary: "sockets between host and guest; on the host they are Unix sockets",
                options: [
                    .path("path", "which Unix socket leads to the guest"),
                    .number("cid", "which address the guest has, 3 or more", defaultValue: "3", upTo: 0xFFFF_FFFE),
                    .transport,
                ]
            ) { (settings, context) throws(MachineError) in
                guard settings.number("cid") >= 3 else {
                    throw MachineError(.configuration, "--device vsock: cid=0 to 2 are taken; give 3 or more")
                }
                let device: VirtioVsock
                do throws(SystemError) {
                    device = try VirtioVsock(name: "vsock", cid: settings.number("cid"), path: settings.text("path"))
                } catch {
                    throw MachineError(
                        .file,
                        "--device vsock: cannot listen at '\(settings.text("path"))' (\(error)); give another path")
                }
                try context.add(device, settings, close: device.close)
            },
        ])
}
