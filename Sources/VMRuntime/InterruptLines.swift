import Chipset
import DeviceBus
import MachineModel

/// The machine's interrupt lines, by ISA number and by I/O APIC pin, whoever models the controllers behind them.
struct InterruptLines {
    let isa: (_ irq: Int) -> any IRQLine
    let pin: (_ pin: Int) -> any IRQLine
    /// The PIT goes with the controllers.
    let hasPIT: Bool

    /// Adds the controllers that the engine does not have to the bus.
    init(_ interrupts: EngineInterrupts, on bus: SystemBus) throws(BusError) {
        switch interrupts {
        case .localAPICs(let apics):
            let pic = PIC8259 { apics.setExternalInterrupt($0) }
            let ioapic = IOAPIC(bus: apics)
            let router = ISAInterruptRouter(pic: pic, ioapic: ioapic)
            apics.connect(router)
            try bus.ports.attach(pic.primaryPorts, name: "pic 1", at: PlatformLayout.Port.pic1)
            try bus.ports.attach(pic.secondaryPorts, name: "pic 2", at: PlatformLayout.Port.pic2)
            try bus.ports.attach(
                pic.edgeLevelPorts, name: "edge/level control", at: PlatformLayout.Port.edgeLevelControl)
            try bus.mmio.attach(
                ioapic, name: "io-apic", at: PlatformLayout.MMIO.ioapic, size: PlatformLayout.MMIO.ioapicSize)
            isa = { router.line($0) }
            pin = { ioapic.line($0) }
            hasPIT = false
        case .wholeChip(let line, _):
            isa = line
            pin = line
            hasPIT = true
        }
    }
}
