import Chipset
import DeviceBus
import MachineModel
import PCI

extension Board {
    /// The root of PCI Express, with its ports and its memory-mapped configuration space.
    static func makeHostBridge(
        on bus: SystemBus, lines: InterruptLines, control: any MachineControl
    ) throws -> PCIHostBridge {
        let pins = (0..<PlatformLayout.PCI.lineCount).map { SharedIRQLine(lines.pin(PlatformLayout.PCI.firstGSI + $0)) }
        let bridge = try PCIHostBridge(
            memory: bus.mmio, memoryWindow: PlatformLayout.PCI.memoryWindow, makeLineEnd: { pins[$0].makeEnd() })
        try bus.ports.attach(
            bridge.makePorts(resetControl: ResetControl(control: control)), name: "host bridge",
            at: PlatformLayout.Port.pciConfiguration)
        try bus.mmio.attach(
            bridge.makeECAM(), name: "ecam", at: PlatformLayout.PCI.ecam, size: PlatformLayout.PCI.ecamSize)
        return bridge
    }
}
