import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct PIT8254Tests {
    let clock = ManualClock()
    let irq = RecordingIRQLine()
    let pit: PIT8254
    let control: any PortDevice

    init() {
        pit = PIT8254(irq: irq, clock: clock)
        control = pit.systemControlPort
    }

    /// Control word, then a count in two bytes.
    func program(_ counter: UInt16, mode: UInt8, count: UInt16, bcd: Bool = false) {
        pit.out(3, UInt8(counter) << 6 | 0x30 | mode << 1 | (bcd ? 1 : 0))
        pit.out(counter, UInt8(count & 0xFF))
        pit.out(counter, UInt8(count >> 8))
    }

    /// The counter latch command and two reads.
    func count(_ counter: UInt16) -> UInt16 {
        pit.out(3, UInt8(counter) << 6)
        return UInt16(pit.byte(counter)) | UInt16(pit.byte(counter)) << 8
    }

    /// Moves the clock so that `ticks` input clocks have passed since it stood at zero.
    func advance(toTick ticks: UInt64) { clock.advance(to: PIT8254.nanoseconds(ticks)) }

    var output2: Bool { control.byte(0) & 0x20 != 0 }

    // MARK: modes

    @Test func mode0InterruptsOnce() {
        program(0, mode: 0, count: 1000)
        #expect(!irq.level)
        advance(toTick: 1000)
        #expect(!irq.level)
        advance(toTick: 1001)
        #expect(irq.level)
        advance(toTick: 500_000)
        #expect(irq.risingEdges == 1)
        #expect(clock.armedTimers == 0)
        // Writing the count again lowers the output and starts over.
        pit.out(0, 0xE8)
        #expect(!irq.level)
        pit.out(0, 0x03)
        advance(toTick: 502_000)
        #expect(irq.risingEdges == 2)
    }

    @Test func mode0CountsOnBelowZero() {
        program(0, mode: 0, count: 10)
        advance(toTick: 1 + 4)
        #expect(count(0) == 6)
        advance(toTick: 1 + 13)
        #expect(count(0) == 0xFFFD)
    }

    @Test func mode2TicksAtTheRate() {
        // 100 Hz, as Linux with HZ=100.
        program(0, mode: 2, count: 11932)
        irq.clear()
        clock.advance(by: 1_000_000_000)
        #expect((99...100).contains(irq.risingEdges))
        #expect((1...11932).contains(count(0)))
    }

    @Test func mode2TakesANewCountAtTheEndOfTheCycle() {
        program(0, mode: 2, count: 1000)
        advance(toTick: 1 + 500)
        pit.out(0, 100)
        pit.out(0, 0)
        #expect(count(0) == 500)
        advance(toTick: 1 + 1000 + 30)
        #expect(count(0) == 70)
    }

    @Test func mode3IsSquare() {
        pit.systemControlPort.out(0, 1)
        program(2, mode: 3, count: 101)
        // High for 51 ticks, low for 50.
        for (tick, level) in [(0, true), (50, true), (51, false), (100, false), (101, true)] as [(UInt64, Bool)] {
            advance(toTick: 1 + tick)
            #expect(output2 == level, "tick \(tick)")
        }
        // Counts by two.
        #expect(count(2) == 100)
        advance(toTick: 1 + 101 + 20)
        #expect(count(2) == 60)
    }

    @Test func mode1WaitsForTheGate() {
        program(2, mode: 1, count: 100)
        #expect(output2)
        advance(toTick: 500)
        #expect(output2)
        control.out(0, 1)
        advance(toTick: 502)
        #expect(!output2)
        // A second trigger begins anew.
        advance(toTick: 560)
        control.out(0, 0)
        control.out(0, 1)
        advance(toTick: 650)
        #expect(!output2)
        advance(toTick: 662)
        #expect(output2)
    }

    @Test func mode4StrobesForOneTick() {
        program(0, mode: 4, count: 200)
        irq.clear()
        #expect(irq.level)
        advance(toTick: 1 + 201)
        #expect(irq.edges == [false, true])
        advance(toTick: 100_000)
        #expect(irq.risingEdges == 1)
        #expect(clock.armedTimers == 0)
    }

    /// How Linux calibrates its delay loop and TSC: mode 0 on counter 2, the speaker off, the gate up.
    @Test func counter2TimesTheTSCCalibration() {
        control.out(0, control.byte(0) & ~0x02 | 0x01)
        program(2, mode: 0, count: 59_659)
        #expect(!output2)
        clock.advance(by: 49_999_000)
        #expect(!output2)
        clock.advance(by: 3_000)
        #expect(output2)
    }

    @Test func gateHoldsCounter2() {
        control.out(0, 1)
        program(2, mode: 0, count: 1000)
        advance(toTick: 1 + 300)
        control.out(0, 0)
        advance(toTick: 5000)
        #expect(count(2) == 700)
        control.out(0, 1)
        advance(toTick: 5000 + 600)
        #expect(count(2) == 100)
    }

    @Test func countsInBCD() {
        program(0, mode: 2, count: 0x1000, bcd: true)
        advance(toTick: 1 + 1)
        #expect(count(0) == 0x0999)
        program(0, mode: 2, count: 0, bcd: true)
        clock.advance(by: 2000)
        #expect(count(0) == 0x9999)
    }

    // MARK: reading

    @Test func latchedCountStaysUntilItIsRead() {
        program(0, mode: 2, count: 50_000)
        advance(toTick: 1 + 10)
        pit.out(3, 0)
        advance(toTick: 1 + 400)
        pit.out(3, 0)
        #expect(UInt16(pit.byte(0)) | UInt16(pit.byte(0)) << 8 == 49_990)
        #expect(count(0) == 49_600)
    }

    @Test func readBackGivesStatusThenCount() {
        program(0, mode: 2, count: 1000)
        advance(toTick: 1 + 100)
        // Status and count of counter 0.
        pit.out(3, 0xC2)
        #expect(pit.byte(0) == 0x80 | 0x30 | 2 << 1)
        #expect(UInt16(pit.byte(0)) | UInt16(pit.byte(0)) << 8 == 900)
        // Null count: written, not yet taken over.
        pit.out(3, 0x34)
        pit.out(3, 0xE2)
        #expect(pit.byte(0) & 0x40 != 0)
    }

    @Test func singleByteAccess() {
        pit.out(3, 0x14)
        pit.out(0, 200)
        advance(toTick: 1 + 50)
        #expect(pit.byte(0) == 150)
        pit.out(3, 0x24)
        pit.out(0, 2)
        clock.advance(by: 3000)
        #expect(pit.byte(0) == 1)
    }

    @Test func refreshBitToggles() {
        var seen: Set<UInt8> = []
        for _ in 0..<8 {
            seen.insert(control.byte(0) & 0x10)
            clock.advance(by: 8_000)
        }
        #expect(seen == [0, 0x10])
        // Only the low four bits are kept.
        control.out(0, 0xFE)
        #expect(control.byte(0) & 0xCF == 0x0E)
    }

    // MARK: the clock's thread

    @Test func pauseIsNotFollowedByAStorm() {
        program(0, mode: 2, count: 1193)
        irq.clear()
        // The clock's thread was held up for a second.
        pit.chip.withLock { $0.timer?.cancel() }
        clock.advance(by: 1_000_000_000)
        _ = control.byte(0)
        pit.out(3, 0x80)
        #expect(irq.risingEdges == 1)
        clock.advance(by: 10_000_000)
        #expect((10...12).contains(irq.risingEdges))
    }

    @Test func periodOfOneTickIsBounded() {
        program(0, mode: 2, count: 1)
        irq.clear()
        clock.advance(by: 10_000_000)
        #expect((100...201).contains(irq.risingEdges))
        program(0, mode: 3, count: 1)
        irq.clear()
        clock.advance(by: 10_000_000)
        #expect((100...201).contains(irq.risingEdges))
    }

    @Test func maskedTicksCostNothing() {
        let bus = RecordingLocalAPICBus()
        let ioapic = IOAPIC(bus: bus)
        let router = ISAInterruptRouter(pic: PIC8259 { bus.setExternalInterrupt($0) }, ioapic: ioapic)
        let pit = PIT8254(irq: router.line(0), clock: clock)
        pit.out(3, 0x34)
        pit.out(0, 0)
        pit.out(0, 0x10)
        #expect(clock.armedTimers == 0)
        func setMask(_ isMasked: Bool) {
            ioapic.writeMMIO(offset: 0, width: .four, value: 0x14)
            ioapic.writeMMIO(offset: 0x10, width: .four, value: isMasked ? 0x1_0040 : 0x40)
        }
        setMask(false)
        #expect(clock.armedTimers == 1)
        clock.advance(by: 34_000_000)
        #expect((9...10).contains(bus.vectors.count))
        setMask(true)
        bus.clear()
        clock.advance(by: 34_000_000)
        #expect(bus.vectors.isEmpty)
        #expect(clock.armedTimers == 0)
    }

    @Test func conversionRoundTrips() {
        for tick in [0, 1, 2, 18, 1_193_182, 123_456_789_012] as [UInt64] {
            #expect(PIT8254.ticks(PIT8254.nanoseconds(tick)) == tick)
        }
        _ = PIT8254.ticks(.max)
        #expect(PIT8254.nanoseconds(.max) == .max)
    }

    // MARK: saved state

    @Test func savedStateGoesOnWhereItWas() throws {
        program(0, mode: 2, count: 11932)
        control.out(0, 1)
        program(2, mode: 0, count: 5000)
        clock.advance(by: 1_000_000)
        let line = RecordingIRQLine()
        let other = PIT8254(irq: line, clock: clock)
        try other.restore(pit.saveState())
        #expect(other.saveState().counters == pit.saveState().counters)
        clock.advance(by: 100_000_000)
        #expect((9...11).contains(line.risingEdges))
        #expect(other.systemControlPort.byte(0) & 0x20 == 0x20)
    }

    @Test func refusesStatesThatCannotBe() {
        for spoil: (inout PIT8254State) -> Void in [
            { $0.counters.removeLast() }, { $0.counters[0].mode = 6 }, { $0.counters[1].period = 0 },
            { $0.counters[1].nextPeriod = 70_000 }, { $0.counters[0].gate = false }, { $0.controlB = 0x80 },
        ] {
            var state = pit.saveState()
            spoil(&state)
            #expect(throws: InvalidDeviceState.self) { try pit.restore(state) }
        }
    }

    @Test func survivesAnything() {
        var random = SplitMix(seed: 8254)
        for _ in 0..<100_000 {
            let value = random.next()
            switch value >> 60 {
            case 0...9: pit.hammer(offset: UInt16(value & 3), value: value, widths: 3)
            case 10...11: control.hammer(offset: 0, value: value, widths: 3)
            default: clock.advance(by: value >> 8 & 0x3FFF)
            }
        }
        clock.advance(to: .max - 1_000_000)
        program(0, mode: 2, count: 3)
    }

    /// A saved state may hold any times.
    @Test func survivesWildTimes() throws {
        var random = SplitMix(seed: 0x40)
        for _ in 0..<2000 {
            var state = pit.saveState()
            for i in 0..<3 {
                state.counters[i].mode = UInt8(random.next() % 6)
                state.counters[i].period = random.next() % 65_536 + 1
                state.counters[i].start = random.next()
                state.counters[i].isBCD = random.next() & 1 != 0
                if random.next() & 3 == 0 { state.counters[i].heldAt = random.next() }
                state.counters[i].isTriggered = random.next() & 1 != 0
            }
            state.settledAt = random.next()
            try pit.restore(state)
            _ = (count(0), count(1), count(2), control.byte(0))
            clock.advance(by: 100)
        }
    }
}
