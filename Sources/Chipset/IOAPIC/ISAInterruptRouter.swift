import MachineModel
import Synchronization

/// A line that can say whether anybody would notice it, so that a device need not keep time for nothing.
public protocol MaskableIRQLine: IRQLine {
    /// Raising the line reaches no CPU now.
    var isMasked: Bool { get }
    /// Who is told, without locks, that `isMasked` may have become false. One at a time.
    func observeUnmasking(_ body: @escaping @Sendable () -> Void)
}

/// Who is told that something is unmasked. A struct of its own: a closure that is itself what a Mutex guards gets one more wrapper around it at each look.
struct UnmaskObserver: Sendable {
    var call: (@Sendable () -> Void)?
}

/// Wires the ISA interrupts to the 8259 pair and the I/O APIC at once, as a PC's board does, and both to the CPUs.
/// IRQ 0 arrives at the I/O APIC's pin 2, the others at the pin of their number; MADT says so (ACPI 6.5, 5.2.12.5).
public final class ISAInterruptRouter: InterruptSource {
    private let pic: PIC8259
    private let ioapic: IOAPIC
    /// Guards who watches which IRQ; not held while they are told.
    private let observers = Mutex<[@Sendable () -> Void]>([])

    /// `pic`'s INTR and `ioapic`'s messages lead to the local APICs; the caller connects those to this object.
    public init(pic: PIC8259, ioapic: IOAPIC) {
        self.pic = pic
        self.ioapic = ioapic
        let notify: @Sendable () -> Void = { [weak self] in self?.notify() }
        pic.observeUnmasking(notify)
        ioapic.observeUnmasking(notify)
    }

    deinit {
        pic.observeUnmasking(nil)
        ioapic.observeUnmasking(nil)
    }

    /// ISA interrupt 0-15, but for 2.
    public func line(_ irq: Int) -> any MaskableIRQLine { Line(router: self, irq: irq) }

    public func acknowledgeExternalInterrupt() -> UInt8 { pic.acknowledge() }

    public func endOfInterrupt(vector: UInt8) { ioapic.endOfInterrupt(vector: vector) }

    private static func gsi(_ irq: Int) -> Int { irq == PlatformLayout.IRQ.pit ? PlatformLayout.IRQ.pitGSI : irq }

    private func notify() {
        for observer in observers.withLock({ $0 }) { observer() }
    }

    private final class Line: MaskableIRQLine {
        let router: ISAInterruptRouter
        let irq: Int

        init(router: ISAInterruptRouter, irq: Int) {
            self.router = router
            self.irq = irq
        }

        func set(_ level: Bool) {
            router.pic.setInput(irq, level)
            router.ioapic.setInput(ISAInterruptRouter.gsi(irq), level)
        }

        var isMasked: Bool { router.pic.isMasked(irq) && router.ioapic.isMasked(ISAInterruptRouter.gsi(irq)) }

        func observeUnmasking(_ body: @escaping @Sendable () -> Void) {
            router.observers.withLock { $0.append(body) }
        }
    }
}
