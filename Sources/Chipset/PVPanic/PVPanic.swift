import MachineModel

/// The pvpanic device on the ISA bus (QEMU's specification "PVPANIC DEVICE", `docs/specs/pvpanic.rst`, version of QEMU
/// 8.0): one port through which a guest says that its kernel has panicked. Left out: the PCI face and the shutdown
/// event.
public final class PVPanic: PortDevice {
    /// Bits of the port: which events there are when read, which has come when written.
    private enum Event {
        static let panicked: UInt32 = 1 << 0
        /// The kernel has panicked and goes on into its crash kernel.
        static let crashLoaded: UInt32 = 1 << 1
    }

    private let control: any MachineControl
    private let crashLoaded: @Sendable () -> Void

    /// `crashLoaded` is told, on the vCPU's thread, of a panic that the guest itself handles.
    public init(control: any MachineControl, crashLoaded: @escaping @Sendable () -> Void) {
        self.control = control
        self.crashLoaded = crashLoaded
    }

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { Event.panicked | Event.crashLoaded }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        if value & Event.panicked != 0 {
            control.report(.guestPanic)
        } else if value & Event.crashLoaded != 0 {
            crashLoaded()
        }
    }
}
