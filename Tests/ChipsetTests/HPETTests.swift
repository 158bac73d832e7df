import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct HPETTests {
    let clock = ManualClock()
    let irq0 = RecordingIRQLine()
    let irq8 = RecordingIRQLine()
    let pins = [RecordingIRQLine(), RecordingIRQLine(), RecordingIRQLine(), RecordingIRQLine()]
    let hpet: HPET

    init() {
        hpet = HPET(irq0: irq0, irq8: irq8, line: { [pins] in pins[$0 - 20] }, clock: clock)
    }

    func read(_ offset: UInt64, _ width: AccessWidth = .eight) -> UInt64 { hpet.readMMIO(offset: offset, width: width) }
    func write(_ offset: UInt64, _ value: UInt64, _ width: AccessWidth = .eight) {
        hpet.writeMMIO(offset: offset, width: width, value: value)
    }

    static let enable: UInt64 = 1 << 2
    static let periodic: UInt64 = 1 << 3
    static let level: UInt64 = 1 << 1
    static let setValue: UInt64 = 1 << 6
    static let mode32: UInt64 = 1 << 8
    static func route(_ pin: UInt64) -> UInt64 { pin << 9 }

    @Test func saysWhatItIs() {
        // 10 ns in femtoseconds, within the specification's 100 ns.
        #expect(read(0) == 10_000_000 << 32 | 0x8086_A201)
        #expect(read(4, .four) == 10_000_000)
        #expect(read(0x100) == 0x00F0_0000 << 32 | 0x30)
        // FSB delivery cannot be switched on.
        write(0x100, .max)
        #expect(read(0x100) & 0xC000 == 0)
    }

    @Test func counterCountsWhileEnabled() {
        clock.advance(by: 1000)
        #expect(read(0xF0) == 0)
        write(0x10, 1)
        clock.advance(by: 1000)
        #expect(read(0xF0) == 100)
        write(0x10, 0)
        clock.advance(by: 1000)
        #expect(read(0xF0) == 100)
        write(0xF4, 7, .four)
        #expect(read(0xF0) == 7 << 32 | 100)
        #expect(clock.armedTimers == 0)
    }

    @Test func oneShotFiresOnceAtItsTime() {
        write(0x120, Self.enable | Self.route(21))
        write(0x128, 5000)
        write(0x10, 1)
        clock.advance(by: 49_990)
        #expect(pins[1].risingEdges == 0)
        clock.advance(by: 10)
        #expect(pins[1].edges == [true, false])
        clock.advance(by: 1_000_000_000)
        #expect(pins[1].risingEdges == 1)
    }

    /// Linux: hpet_clkevt_set_state_periodic.
    @Test func periodicInLegacyModeIsIRQ0() {
        write(0x10, 0)
        write(0xF0, 0)
        write(0x10, 3)
        write(0x100, Self.enable | Self.periodic | Self.setValue | Self.mode32, .four)
        write(0x108, 400_000, .four)
        write(0x108, 400_000, .four)
        clock.advance(by: 1_000_000_000)
        #expect(irq0.risingEdges == 250)
        #expect(read(0x108) % 400_000 == 0)
    }

    @Test func thirtyTwoBitComparatorWraps() {
        write(0xF0, 0xFFFF_FF00)
        write(0x120, Self.enable | Self.mode32 | Self.route(20))
        write(0x128, 0x100)
        write(0x10, 1)
        clock.advance(by: 5_110)
        #expect(pins[0].risingEdges == 0)
        clock.advance(by: 10)
        #expect(pins[0].risingEdges == 1)
    }

    @Test func levelStaysUntilItsStatusIsCleared() {
        write(0x140, Self.enable | Self.level | Self.route(22))
        write(0x148, 10)
        write(0x10, 1)
        clock.advance(by: 200)
        #expect(pins[2].level)
        #expect(read(0x20) == 4)
        write(0x20, 3)
        #expect(pins[2].level)
        write(0x20, 4)
        #expect(!pins[2].level)
        #expect(read(0x20) == 0)
    }

    @Test func standsInForPITAndRTC() {
        let (pit, rtc) = (hpet.pitLine, hpet.rtcLine)
        pit.set(true)
        #expect(irq0.level)
        write(0x10, 3)
        #expect(!irq0.level)
        #expect(pit.isMasked)
        rtc.set(true)
        #expect(!irq8.level)
        write(0x120, Self.enable | Self.level)
        write(0x128, read(0xF0) + 100)
        clock.advance(by: 2000)
        #expect(irq8.level)
        // Back again: the devices' own levels.
        let noticed = RecordingIRQLine()
        pit.observeUnmasking { noticed.set(true) }
        write(0x10, 1)
        #expect(noticed.level)
        #expect(irq0.level)
        #expect(irq8.level)
        rtc.set(false)
        #expect(!irq8.level)
    }

    @Test func periodOfOneTickIsBounded() {
        write(0x120, Self.enable | Self.periodic | Self.setValue | Self.route(20))
        write(0x128, 1)
        write(0x10, 1)
        clock.advance(by: 10_000_000)
        #expect((100...201).contains(pins[0].risingEdges))
    }

    @Test func pauseIsNotFollowedByAStorm() {
        write(0x120, Self.enable | Self.periodic | Self.setValue | Self.route(20))
        write(0x128, 100_000)
        write(0x10, 1)
        hpet.chip.withLock { $0.clockTimer?.cancel() }
        clock.advance(by: 1_000_000_000)
        _ = read(0xF0)
        #expect(pins[0].risingEdges == 1)
    }

    @Test func savedStateGoesOnWhereItWas() throws {
        write(0x120, Self.enable | Self.periodic | Self.setValue | Self.route(20))
        write(0x128, 100_000)
        write(0x10, 1)
        clock.advance(by: 3_500_000)
        let state = hpet.saveState()
        let line = RecordingIRQLine()
        let other = HPET(irq0: irq0, irq8: irq8, line: { _ in line }, clock: clock)
        try other.restore(state)
        #expect(other.readMMIO(offset: 0xF0, width: .eight) == 350_000)
        clock.advance(by: 1_000_000)
        #expect(line.risingEdges == 1)
    }

    @Test func refusesStatesThatCannotBe() {
        for spoil: (inout HPETState) -> Void in [
            { $0.timers.removeLast() }, { $0.configuration = 4 }, { $0.interruptStatus = 8 },
            { $0.interruptStatus = 1 },
            { $0.timers[0].configuration = 1 },
        ] {
            var state = hpet.saveState()
            spoil(&state)
            #expect(throws: InvalidDeviceState.self) { try hpet.restore(state) }
        }
    }

    @Test func survivesAnything() {
        var random = SplitMix(seed: 0xFED0_0000)
        let widths: [AccessWidth] = [.one, .two, .four, .eight]
        for _ in 0..<100_000 {
            let value = random.next()
            let offset = value >> 40 & 1 == 0 ? value >> 41 & 0x1F8 : value >> 41 & 0x3FF
            switch value & 3 {
            case 0, 1: write(offset, random.next() >> (value >> 16 & 63), widths[Int(value >> 8 & 3)])
            case 2: _ = read(offset, widths[Int(value >> 8 & 3)])
            default: clock.advance(by: value >> 8 & 0x3FFF)
            }
        }
        #expect(read(0) == 10_000_000 << 32 | 0x8086_A201)
    }
}
