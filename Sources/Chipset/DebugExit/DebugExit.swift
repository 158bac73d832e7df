import MachineModel

/// A port with which test kernels end the machine: a write of `code` makes Davit's exit status `(code << 1) | 1`, as
/// with QEMU's isa-debug-exit. Port and width are up to whoever attaches it.
public final class DebugExit: PortDevice {
    /// Ports, unless the user says otherwise.
    public static let defaultSize: UInt16 = 4

    private let control: any MachineControl

    public init(control: any MachineControl) { self.control = control }

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 { 0 }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        control.report(.debugExit(code: value))
    }
}
