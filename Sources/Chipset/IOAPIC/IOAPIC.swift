// The I/O APIC: Intel 82093AA data sheet (May 1996), with the EOI register of version 0x20, as in Intel's ICH.
// Left out: polarity. A line here says whether its device asks for service, so that there is no voltage to invert; the bit is kept.

import MachineModel
import Synchronization

/// An I/O APIC with 24 pins. Interrupts go to the local APICs as messages.
public final class IOAPIC: MMIODevice {
    struct Chip: Sendable {
        var ioregsel: UInt8 = 0
        var id: UInt32 = 0
        var entries = [UInt64](repeating: IOAPICEntry.masked, count: PlatformLayout.ioapicPinCount)
        /// Pins whose line is raised, by bit.
        var lines: UInt32 = 0
    }

    /// Guards registers and pins. Held while messages are delivered, which takes no device's lock; so lines may be set under a
    /// device's own, and EOIs come in on vCPU threads.
    let chip = Mutex(Chip())
    let bus: any LocalAPICBus
    /// Guards who is told when a pin is unmasked; not held while they are.
    private let unmaskObserver = Mutex(UnmaskObserver())

    public init(bus: any LocalAPICBus) { self.bus = bus }

    // MARK: pins

    /// The line to pin `pin`, a global system interrupt of 0-23.
    public func line(_ pin: Int) -> any IRQLine { Line(ioapic: self, pin: pin) }

    public func setInput(_ pin: Int, _ level: Bool) {
        guard (0..<PlatformLayout.ioapicPinCount).contains(pin) else { return }
        chip.withLock { chip in
            let bit: UInt32 = 1 << UInt32(pin)
            let wasRaised = chip.lines & bit != 0
            guard level != wasRaised else { return }
            chip.lines ^= bit
            if level { service(&chip, pin, isEdge: true) }
        }
    }

    /// The end of a level-triggered interrupt. A pin whose line is still raised sends it again.
    public func endOfInterrupt(vector: UInt8) {
        chip.withLock { chip in
            for pin in chip.entries.indices {
                let entry = chip.entries[pin]
                guard entry & IOAPICEntry.vector == UInt64(vector), entry & IOAPICEntry.remoteIRR != 0 else { continue }
                chip.entries[pin] &= ~IOAPICEntry.remoteIRR
                service(&chip, pin, isEdge: false)
            }
        }
    }

    func isMasked(_ pin: Int) -> Bool {
        chip.withLock { !$0.entries.indices.contains(pin) || $0.entries[pin] & IOAPICEntry.masked != 0 }
    }

    /// Who is told, without locks, that a mask bit was cleared.
    func observeUnmasking(_ body: (@Sendable () -> Void)?) { unmaskObserver.withLock { $0.call = body } }

    /// Sends what a raised pin asks for. An edge at a masked pin is lost (data sheet, 3.2.4, bit 16).
    func service(_ chip: inout Chip, _ pin: Int, isEdge: Bool) {
        let entry = chip.entries[pin]
        guard entry & IOAPICEntry.masked == 0, chip.lines >> UInt32(pin) & 1 != 0 else { return }
        if entry & IOAPICEntry.level != 0 {
            // One at a time, until its EOI. Only fixed and lowest-priority interrupts have one.
            guard entry & IOAPICEntry.remoteIRR == 0 else { return }
            if entry >> 8 & 7 < 2 { chip.entries[pin] |= IOAPICEntry.remoteIRR }
        } else if !isEdge {
            return
        }
        bus.deliver(Self.message(entry))
    }

    /// The write to a local APIC that a redirection entry stands for (Intel SDM vol. 3, 11.11). Destination bits 8-14 go where
    /// `LocalAPICBus` looks for them in a message's address.
    static func message(_ entry: UInt64) -> InterruptMessage {
        let logical: UInt64 = entry & IOAPICEntry.logical != 0 ? 1 << 2 : 0
        let address = 0xFEE0_0000 | (entry >> 56) << 12 | (entry >> 49 & 0x7F) << 5 | logical
        let trigger: UInt32 = entry & IOAPICEntry.level != 0 ? 1 << 15 | 1 << 14 : 0
        return InterruptMessage(address: address, data: UInt32(entry & 0x7FF) | trigger)
    }

    /// What a level-triggered pin sends, masked or not: an end may still come for a pin that was masked meanwhile.
    static func levelTriggered(_ entry: UInt64) -> InterruptMessage? {
        entry & IOAPICEntry.level != 0 ? message(entry) : nil
    }

    private final class Line: IRQLine {
        let ioapic: IOAPIC
        let pin: Int

        init(ioapic: IOAPIC, pin: Int) {
            self.ioapic = ioapic
            self.pin = pin
        }

        func set(_ level: Bool) { ioapic.setInput(pin, level) }
    }

    // MARK: registers

    public func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        // A register fills the first four of 16 bytes.
        guard offset & 15 < 4 else { return 0 }
        let value = chip.withLock { chip -> UInt32 in
            switch offset & ~15 {
            case IOAPICRegister.ioregsel: UInt32(chip.ioregsel)
            case IOAPICRegister.iowin: read(chip, chip.ioregsel)
            default: 0
            }
        }
        return UInt64(value) >> ((offset & 3) &* 8) & width.mask
    }

    /// IOREGSEL takes its low byte from any width, IOWIN and EOI only 32 bits or more.
    public func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        switch offset {
        case IOAPICRegister.ioregsel: chip.withLock { $0.ioregsel = UInt8(truncatingIfNeeded: value) }
        case IOAPICRegister.iowin where width.bytes >= 4:
            let isUnmasked = chip.withLock { write(&$0, $0.ioregsel, UInt32(truncatingIfNeeded: value)) }
            if isUnmasked { unmaskObserver.withLock { $0.call }?() }
        case IOAPICRegister.eoi where width.bytes >= 4: endOfInterrupt(vector: UInt8(truncatingIfNeeded: value))
        default: break
        }
    }

    /// Pin and shift of a redirection register's index.
    private func half(_ index: UInt8) -> (pin: Int, shift: UInt64)? {
        guard index >= IOAPICRegister.redirection else { return nil }
        let pin = Int(index &- IOAPICRegister.redirection) >> 1
        return pin < PlatformLayout.ioapicPinCount ? (pin, UInt64(index & 1) &* 32) : nil
    }

    private func read(_ chip: borrowing Chip, _ index: UInt8) -> UInt32 {
        switch index {
        case IOAPICRegister.id: return chip.id
        case IOAPICRegister.version: return UInt32(PlatformLayout.ioapicPinCount - 1) << 16 | 0x20
        case IOAPICRegister.arbitrationID: return chip.id & 0x0F00_0000
        default:
            guard let (pin, shift) = half(index) else { return 0 }
            return UInt32(truncatingIfNeeded: chip.entries[pin] >> shift)
        }
    }

    /// True if a pin was unmasked.
    private func write(_ chip: inout Chip, _ index: UInt8, _ value: UInt32) -> Bool {
        if index == IOAPICRegister.id { chip.id = value & 0x0F00_0000 }
        guard let (pin, shift) = half(index) else { return false }
        let part = IOAPICEntry.writable & 0xFFFF_FFFF << shift
        var entry = chip.entries[pin] & ~part | UInt64(value) << shift & part
        // Software clears a stuck remote IRR by making the pin edge-triggered for a moment.
        if entry & IOAPICEntry.level == 0 { entry &= ~IOAPICEntry.remoteIRR }
        let isUnmasked = chip.entries[pin] & ~entry & IOAPICEntry.masked != 0
        let before = Self.levelTriggered(chip.entries[pin])
        chip.entries[pin] = entry
        let now = Self.levelTriggered(entry)
        if now != before { bus.setLevelTriggered(now, pin: pin) }
        service(&chip, pin, isEdge: false)
        return isUnmasked
    }
}
