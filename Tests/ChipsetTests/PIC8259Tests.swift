import MachineModel
import Testing

@testable import Chipset

@Suite struct PIC8259Tests {
    let bus = RecordingLocalAPICBus()
    let pic: PIC8259
    let primary: any PortDevice
    let secondary: any PortDevice
    let elcr: any PortDevice

    init() {
        pic = PIC8259 { [bus] in bus.setExternalInterrupt($0) }
        (primary, secondary, elcr) = (pic.primaryPorts, pic.secondaryPorts, pic.edgeLevelPorts)
    }

    /// As Linux does: vectors 0x30 and 0x38, nothing masked.
    func setUp(icw4: UInt8 = 1) {
        for (chip, base, icw3) in [(primary, 0x30, 4), (secondary, 0x38, 2)] as [(any PortDevice, UInt8, UInt8)] {
            chip.out(0, 0x11)
            chip.out(1, base)
            chip.out(1, icw3)
            chip.out(1, icw4)
            chip.out(1, 0)
        }
    }

    func pulse(_ irq: Int) {
        pic.setInput(irq, true)
        pic.setInput(irq, false)
    }

    func nonspecificEOI(_ chip: any PortDevice) { chip.out(0, 0x20) }

    /// What the chip reads after OCW3.
    func irr(_ chip: any PortDevice) -> UInt8 {
        chip.out(0, 0x0A)
        return chip.byte(0)
    }

    func isr(_ chip: any PortDevice) -> UInt8 {
        chip.out(0, 0x0B)
        return chip.byte(0)
    }

    /// As a PC's firmware leaves it.
    @Test func powerOnState() {
        #expect([primary.byte(1), secondary.byte(1)] == [0xFF, 0xFF])
        pulse(3)
        #expect(!bus.intr)
        primary.out(1, 0xF7)
        #expect(pic.acknowledge() == 0x0B)
    }

    /// Linux's probe_8259A: the mask register keeps what is written before anything is initialized.
    @Test func isFoundByLinux() {
        secondary.out(1, 0xFF)
        primary.out(1, 0xFB)
        #expect(primary.byte(1) == 0xFB)
    }

    @Test func silentWhileBeingInitialized() {
        setUp()
        primary.out(0, 0x11)
        pulse(3)
        #expect(!bus.intr)
        for value in [0x20, 4, 1] as [UInt8] { primary.out(1, value) }
        #expect(pic.acknowledge() == 0x23)
    }

    @Test func deliversAnEdgeOnce() {
        setUp()
        pic.setInput(4, true)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x34)
        #expect(!bus.intr)
        #expect(isr(primary) == 0x10)
        // The line is still up, but it made no new edge.
        nonspecificEOI(primary)
        #expect(isr(primary) == 0)
        #expect(!bus.intr)
    }

    @Test func higherPriorityInterruptsLower() {
        setUp()
        pulse(5)
        #expect(pic.acknowledge() == 0x35)
        pulse(6)
        #expect(!bus.intr)
        pulse(1)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x31)
        // The most urgent one in service ends first.
        nonspecificEOI(primary)
        #expect(isr(primary) == 0x20)
        nonspecificEOI(primary)
        #expect(pic.acknowledge() == 0x36)
    }

    @Test func secondaryComesThroughTheCascade() {
        setUp()
        pulse(8)
        pulse(14)
        #expect(pic.acknowledge() == 0x38)
        #expect(isr(primary) == 4)
        #expect(!bus.intr)
        nonspecificEOI(secondary)
        nonspecificEOI(primary)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x3E)
    }

    @Test func maskHoldsBackAndLatches() {
        setUp()
        primary.out(1, 0xFF)
        pulse(4)
        #expect(!bus.intr)
        #expect(irr(primary) == 0x10)
        primary.out(1, 0xEF)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x34)
    }

    @Test func spuriousInterruptsHaveNoServiceBit() {
        setUp()
        elcr.out(1, 0x02)
        pic.setInput(9, true)
        pic.setInput(9, false)
        // A level that went away before INTA.
        #expect(pic.acknowledge() == 0x37)
        #expect(isr(primary) == 0)
        // So does a mask that comes in between.
        pic.setInput(9, true)
        #expect(bus.intr)
        secondary.out(1, 0xFF)
        #expect(!bus.intr)
        #expect(pic.acknowledge() == 0x37)
    }

    @Test func levelTriggeredInputAsksUntilItFalls() {
        setUp()
        elcr.out(1, 0xFF)
        // IRQ 8 and 13 stay edge-triggered.
        #expect(elcr.byte(1) == 0xDE)
        pic.setInput(11, true)
        #expect(pic.acknowledge() == 0x3B)
        nonspecificEOI(secondary)
        nonspecificEOI(primary)
        #expect(bus.intr)
        pic.setInput(11, false)
        #expect(!bus.intr)
    }

    @Test func automaticEOILeavesNothingInService() {
        setUp(icw4: 3)
        pulse(3)
        #expect(pic.acknowledge() == 0x33)
        #expect(isr(primary) == 0)
    }

    @Test func rotationGivesTheServedInputTheLowestPriority() {
        setUp()
        pulse(3)
        _ = pic.acknowledge()
        // Rotate on non-specific EOI.
        primary.out(0, 0xA0)
        pulse(3)
        pulse(4)
        #expect(pic.acknowledge() == 0x34)
        nonspecificEOI(primary)
        // Set priority: IRQ 2 lowest, so 3 is first.
        primary.out(0, 0xC2)
        pulse(0)
        #expect(pic.acknowledge() == 0x33)
    }

    @Test func specialMaskModeLetsLowerPrioritiesThrough() {
        setUp()
        pulse(1)
        _ = pic.acknowledge()
        pulse(6)
        #expect(!bus.intr)
        primary.out(1, 0x02)
        #expect(!bus.intr)
        primary.out(0, 0x68)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x36)
        // Non-specific EOI does not end the masked one.
        nonspecificEOI(primary)
        #expect(isr(primary) == 0x02)
        primary.out(0, 0x61)
        #expect(isr(primary) == 0)
    }

    @Test func specialFullyNestedModeLetsTheSecondaryNest() {
        setUp(icw4: 0x11)
        pulse(12)
        #expect(pic.acknowledge() == 0x3C)
        pulse(8)
        #expect(bus.intr)
        #expect(pic.acknowledge() == 0x38)
    }

    @Test func pollAcknowledges() {
        setUp()
        primary.out(1, 0xBF)
        pulse(6)
        primary.out(0, 0x0C)
        #expect(primary.byte(0) == 0x86)
        #expect(isr(primary) == 0x40)
        #expect(!bus.intr)
        primary.out(0, 0x0C)
        #expect(primary.byte(0) == 0)
    }

    @Test func savedStateGoesOnWhereItWas() throws {
        setUp()
        pulse(4)
        pulse(10)
        let state = pic.saveState()
        let otherBus = RecordingLocalAPICBus()
        let other = PIC8259 { otherBus.setExternalInterrupt($0) }
        try other.restore(state)
        #expect(otherBus.intr)
        #expect(other.acknowledge() == 0x3A)
        #expect(other.saveState() != state)
    }

    @Test func refusesStatesThatCannotBe() {
        var state = pic.saveState()
        state.primary.lowest = 8
        #expect(throws: InvalidDeviceState.self) { try pic.restore(state) }
        state = pic.saveState()
        state.secondary.vectorBase = 3
        #expect(throws: InvalidDeviceState.self) { try pic.restore(state) }
        state = pic.saveState()
        state.version = 9
        #expect(throws: InvalidDeviceState.self) { try pic.restore(state) }
    }

    @Test func survivesAnything() {
        var random = SplitMix(seed: 8259)
        for _ in 0..<100_000 {
            let value = random.next()
            switch value >> 60 {
            case 0...3: primary.hammer(offset: UInt16(value & 1), value: value, widths: 3)
            case 4...7: secondary.hammer(offset: UInt16(value & 1), value: value, widths: 3)
            case 8: elcr.hammer(offset: UInt16(value & 1), value: value, widths: 3)
            case 9: _ = pic.acknowledge()
            default: pic.setInput(Int(value & 31) - 8, value >> 8 & 1 != 0)
            }
        }
        for irq in 0..<16 { pic.setInput(irq, false) }
        elcr.out(0, 0)
        setUp()
        pulse(3)
        #expect(pic.acknowledge() == 0x33)
    }
}
