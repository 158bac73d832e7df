import MachineModel
import Synchronization

/// The reset control register at port 0xCF9 of Intel's chipsets (RST_CNT; Intel 7 Series PCH data sheet, 13.7.5), which
/// FADT names as ACPI's reset register.
///
/// It answers byte accesses at the second port of `PlatformLayout.Port.pciConfiguration` and nothing else there: a wide
/// write to those ports is an address for PCI, and one of its bytes must not reset the machine. The host bridge, which
/// owns the ports, hands such byte accesses on. Left out: the difference between soft, hard and full reset, for there is
/// nothing here that outlives any of them.
public final class ResetControl: PortDevice {
    private let control: any MachineControl
    /// Guards the register.
    private let register = Mutex<UInt8>(0)

    public init(control: any MachineControl) { self.control = control }

    public func readPort(offset: UInt16, width: AccessWidth) -> UInt32 {
        guard offset == 1, width == .one else { return UInt32.max }
        return UInt32(register.withLock { $0 })
    }

    public func writePort(offset: UInt16, width: AccessWidth, value: UInt32) {
        guard offset == 1, width == .one else { return }
        let value = UInt8(truncatingIfNeeded: value) & (RST_CNT.sysRst | RST_CNT.rstCpu | RST_CNT.fullRst)
        let isReset = register.withLock { register in
            defer { register = value }
            return value & RST_CNT.rstCpu != 0 && register & RST_CNT.rstCpu == 0
        }
        if isReset { control.report(.reset(.resetRegister)) }
    }

    private enum RST_CNT {
        /// Hard rather than soft.
        static let sysRst: UInt8 = 1 << 1
        /// Going from zero to one starts the reset.
        static let rstCpu: UInt8 = 1 << 2
        /// With a power cycle.
        static let fullRst: UInt8 = 1 << 3
    }
}
