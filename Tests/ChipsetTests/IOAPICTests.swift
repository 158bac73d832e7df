import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct IOAPICTests {
    let bus = RecordingLocalAPICBus()
    let ioapic: IOAPIC

    init() { ioapic = IOAPIC(bus: bus) }

    func write(_ register: UInt8, _ value: UInt32) {
        ioapic.writeMMIO(offset: 0, width: .one, value: UInt64(register))
        ioapic.writeMMIO(offset: 0x10, width: .four, value: UInt64(value))
    }

    func read(_ register: UInt8) -> UInt32 {
        ioapic.writeMMIO(offset: 0, width: .four, value: UInt64(register))
        return UInt32(ioapic.readMMIO(offset: 0x10, width: .four))
    }

    func setEntry(_ pin: UInt8, _ value: UInt64) {
        write(0x11 + pin * 2, UInt32(value >> 32))
        write(0x10 + pin * 2, UInt32(truncatingIfNeeded: value))
    }

    static let level: UInt64 = 1 << 15

    @Test func saysWhatItIs() {
        #expect(read(1) == 0x17_0020)
        write(0, 0xFFFF_FFFF)
        #expect(read(0) == 0x0F00_0000)
        for pin in 0..<24 as Range<UInt8> { #expect(read(0x10 + pin * 2) == 0x1_0000) }
        #expect(read(0x40) == 0)
    }

    @Test func sendsOneMessageForAnEdge() {
        setEntry(4, 3 << 56 | 0x51)
        let line = ioapic.line(4)
        line.set(true)
        line.set(true)
        #expect(bus.messages == [InterruptMessage(address: 0xFEE0_3000, data: 0x51)])
        line.set(false)
        line.set(true)
        #expect(bus.vectors == [0x51, 0x51])
    }

    @Test func messageCarriesModeDestinationAndTrigger() {
        // Lowest priority, logical, level, destination 0x0F.
        setEntry(20, 0x0F << 56 | Self.level | 1 << 11 | 1 << 8 | 0x77)
        ioapic.line(20).set(true)
        #expect(bus.messages == [InterruptMessage(address: 0xFEE0_F004, data: 0xC177)])
    }

    /// Masked pins too: the end of an interrupt may come when its pin has been masked.
    @Test func busKnowsWhatLevelTriggeredPinsSend() {
        setEntry(20, 0x02 << 56 | Self.level | 0x61)
        setEntry(4, 0x52)
        #expect(bus.levelTriggered == [20: InterruptMessage(address: 0xFEE0_2000, data: 0xC061)])
        setEntry(20, 0x02 << 56 | Self.level | 1 << 16 | 0x61)
        #expect(bus.levelTriggered == [20: InterruptMessage(address: 0xFEE0_2000, data: 0xC061)])
        setEntry(20, 0x61)
        #expect(bus.levelTriggered == [:])
    }

    @Test func edgeAtAMaskedPinIsLost() {
        ioapic.line(5).set(true)
        setEntry(5, 0x60)
        #expect(bus.messages.isEmpty)
    }

    @Test func levelIsSentOnceUntilItsEOI() {
        setEntry(9, Self.level | 0x61)
        ioapic.line(9).set(true)
        ioapic.line(9).set(false)
        ioapic.line(9).set(true)
        #expect(bus.vectors == [0x61])
        #expect(read(0x22) >> 14 & 1 == 1)
        ioapic.endOfInterrupt(vector: 0x62)
        #expect(bus.vectors == [0x61])
        // Still raised: again.
        ioapic.endOfInterrupt(vector: 0x61)
        #expect(bus.vectors == [0x61, 0x61])
        ioapic.line(9).set(false)
        ioapic.endOfInterrupt(vector: 0x61)
        #expect(bus.vectors == [0x61, 0x61])
        #expect(read(0x22) >> 14 & 1 == 0)
    }

    @Test func unmaskingSendsAWaitingLevel() {
        setEntry(9, Self.level | 1 << 16 | 0x61)
        ioapic.line(9).set(true)
        #expect(bus.messages.isEmpty)
        setEntry(9, Self.level | 0x61)
        #expect(bus.vectors == [0x61])
    }

    @Test func eoiRegisterEndsTheVector() {
        setEntry(9, Self.level | 0x61)
        ioapic.line(9).set(true)
        ioapic.writeMMIO(offset: 0x40, width: .four, value: 0x61)
        #expect(bus.vectors == [0x61, 0x61])
    }

    /// How Linux clears a remote IRR that is stuck.
    @Test func goingThroughEdgeClearsRemoteIRR() {
        setEntry(9, Self.level | 0x61)
        ioapic.line(9).set(true)
        ioapic.line(9).set(false)
        setEntry(9, 1 << 16 | 0x61)
        setEntry(9, Self.level | 0x61)
        #expect(read(0x22) >> 14 & 1 == 0)
    }

    @Test func isaInterruptsReachBothControllers() {
        let pic = PIC8259 { [bus] in bus.setExternalInterrupt($0) }
        let router = ISAInterruptRouter(pic: pic, ioapic: ioapic)
        let (line0, line4) = (router.line(0), router.line(4))
        setEntry(2, 0x40)
        setEntry(4, 0x44)
        line0.set(true)
        line4.set(true)
        #expect(bus.vectors == [0x40, 0x44])
        #expect(!line0.isMasked)
        setEntry(2, 1 << 16)
        // The 8259 has everything masked.
        #expect(line0.isMasked)
        let noticed = RecordingIRQLine()
        line0.observeUnmasking { noticed.set(true) }
        for (offset, value) in [(0, 0x11), (1, 0x30), (1, 4), (1, 1), (1, 0)] as [(UInt16, UInt8)] {
            pic.primaryPorts.out(offset, value)
        }
        #expect(noticed.level)
        #expect(!line0.isMasked)
        #expect(router.acknowledgeExternalInterrupt() == 0x37)
    }

    @Test func savedStateGoesOnWhereItWas() throws {
        setEntry(9, Self.level | 0x61)
        ioapic.line(9).set(true)
        let other = IOAPIC(bus: bus)
        try other.restore(ioapic.saveState())
        #expect(other.saveState() == ioapic.saveState())
        other.endOfInterrupt(vector: 0x61)
        #expect(bus.vectors == [0x61, 0x61])
    }

    @Test func refusesStatesThatCannotBe() {
        for spoil: (inout IOAPICState) -> Void in [
            { $0.entries.removeLast() }, { $0.lines = 1 << 24 }, { $0.entries[3] = 1 << 14 }, { $0.id = 1 },
        ] {
            var state = ioapic.saveState()
            spoil(&state)
            #expect(throws: InvalidDeviceState.self) { try ioapic.restore(state) }
        }
    }

    @Test func survivesAnything() {
        var random = SplitMix(seed: 82093)
        let widths: [AccessWidth] = [.one, .two, .four, .eight]
        for _ in 0..<100_000 {
            let value = random.next()
            let offset = value >> 32 & 1 == 0 ? (value >> 33 & 1) * 0x10 : value >> 34 & 0xFFF
            switch value & 7 {
            case 0...3:
                ioapic.writeMMIO(offset: offset, width: widths[Int(value >> 8 & 3)], value: random.next() & 0xFFFFFF)
            case 4: _ = ioapic.readMMIO(offset: offset, width: widths[Int(value >> 8 & 3)])
            case 5: ioapic.endOfInterrupt(vector: UInt8(value >> 8 & 0xFF))
            default: ioapic.setInput(Int(value >> 8 & 31) - 2, value >> 16 & 1 != 0)
            }
        }
        #expect(read(1) == 0x17_0020)
    }
}
