import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct PowerManagementTests {
    let clock = ManualClock()
    let sci = RecordingIRQLine()
    let control = RecordingMachineControl()
    let power: PowerManagement

    init() { power = PowerManagement(sci: sci, clock: clock, control: control) }

    func word(_ port: UInt16) -> UInt16 {
        UInt16(truncatingIfNeeded: power.readPort(offset: port - 0x600, width: .two))
    }

    func write(_ port: UInt16, _ value: UInt16) {
        power.writePort(offset: port - 0x600, width: .two, value: UInt32(value))
    }

    @Test func theMachineIsInACPIMode() {
        #expect(word(0x604) == 0x0001)
        write(0x604, 0)
        #expect(word(0x604) == 0x0001)
    }

    @Test func s5SwitchesOff() {
        write(0x604, 5 << 10)
        #expect(control.events == [])
        write(0x604, 5 << 10 | 1 << 13)
        #expect(control.events == [.powerOff])
        #expect(word(0x604) == 5 << 10 | 1, "SLP_EN reads as zero")
    }

    @Test func s5ByBytesSwitchesOffToo() {
        power.out(5, 0x34)
        #expect(control.events == [.powerOff])
    }

    @Test func otherSleepTypesDoNothing() {
        for type in UInt16(0)..<8 where type != 5 { write(0x604, type << 10 | 1 << 13) }
        #expect(control.events == [])
    }

    @Test func thePowerButtonAsksForAShutdown() {
        #expect(!power.pressPowerButton())
        #expect(word(0x600) == 0x0100)
        #expect(!sci.level)
        write(0x602, 0x0100)
        #expect(sci.level, "it was pressed before the guest listened")
        write(0x600, 0x0100)
        #expect(!sci.level)
        #expect(power.pressPowerButton())
        #expect(sci.level)
        #expect(sci.edges == [true, false, true])
    }

    @Test func statusIsClearedByOnesOnly() {
        power.pressPowerButton()
        write(0x600, 0xFEFF)
        #expect(word(0x600) == 0x0100)
        power.out(1, 0x01)
        #expect(word(0x600) == 0)
    }

    @Test func enableKeepsOnlyItsBits() {
        write(0x602, 0xFFFF)
        #expect(word(0x602) == 0x0721)
        power.out(3, 0)
        #expect(word(0x602) == 0x0021)
    }

    // MARK: PM timer

    @Test func theTimerCountsAt3579545Hertz() {
        #expect(power.readPort(offset: 8, width: .four) == 0)
        clock.advance(by: 1_000_000_000)
        #expect(power.readPort(offset: 8, width: .four) == 3_579_545)
        #expect(power.readPort(offset: 9, width: .two) == 3_579_545 >> 8 & 0xFFFF)
        // An hour on it has gone round.
        clock.advance(to: 3_600_000_000_000)
        #expect(power.readPort(offset: 8, width: .four) == UInt32(truncatingIfNeeded: 3_600 * 3_579_545))
    }

    @Test func theTimerIsReadOnly() {
        power.writePort(offset: 8, width: .four, value: 0x1234_5678)
        #expect(power.readPort(offset: 8, width: .four) == 0)
    }

    @Test func theTopBitsChangeRaisesSCI() {
        write(0x602, 0x0001)
        let change = Frequency.time(of: 1 << 31, at: 3_579_545)
        #expect(clock.nextDeadline == change)
        clock.advance(to: change - 1)
        #expect(!sci.level)
        clock.advance(to: change)
        #expect(sci.level)
        #expect(word(0x600) == 0x0001)
        write(0x600, 0x0001)
        #expect(!sci.level)
        // And again when it falls back.
        clock.advance(to: Frequency.time(of: 1 << 32, at: 3_579_545))
        #expect(sci.level)
    }

    @Test func pollingSeesTheChangeWithoutAnyTimer() {
        clock.advance(to: Frequency.time(of: 1 << 31, at: 3_579_545))
        #expect(clock.armedTimers == 0)
        #expect(word(0x600) == 0x0001)
        write(0x600, 0x0001)
        #expect(word(0x600) == 0)
    }

    @Test func ticksAreExactAtTheEndOfTime() {
        #expect(Frequency.ticks(in: UInt64.max, at: 3_579_545) == 66030950515326656)
        #expect(Frequency.time(of: UInt64.max, at: 3_579_545) == UInt64.max)
        for tick in [1, 2, 3, 1 << 31, 1 << 50] as [UInt64] {
            let time = Frequency.time(of: tick, at: 3_579_545)
            #expect(Frequency.ticks(in: time, at: 3_579_545) == tick)
            #expect(Frequency.ticks(in: time - 1, at: 3_579_545) == tick - 1)
        }
    }

    // MARK: GPE

    @Test func generalPurposeEventsRaiseSCI() {
        power.raiseGeneralPurposeEvent(9)
        #expect(!sci.level)
        power.out(0x23, 0x02)
        #expect(sci.level)
        #expect(power.byte(0x20) == 0)
        #expect(power.byte(0x21) == 0x02)
        power.out(0x21, 0x02)
        #expect(!sci.level)
    }

    // MARK: State

    @Test func stateSurvivesSaveAndRestore() throws {
        write(0x602, 0x0101)
        power.pressPowerButton()
        let state = power.saveState()
        let line = RecordingIRQLine()
        let other = PowerManagement(sci: line, clock: clock, control: control)
        try other.restore(state)
        #expect(line.level)
        #expect(other.saveState() == state)
        var lie = state
        lie.enable = 0x8000
        #expect(throws: InvalidDeviceState.self) { try other.restore(lie) }
        lie = state
        lie.version = 0
        #expect(throws: InvalidDeviceState.self) { try other.restore(lie) }
    }

    @Test func anyAccessIsSurvived() {
        var random = SplitMix(seed: 0xAC91)
        for _ in 0..<50_000 {
            let value = random.next()
            power.hammer(offset: UInt16(value & 0x3F), value: value, widths: 3)
            if value >> 60 == 0 { clock.advance(by: value >> 20 & 0xFF_FFFF_FFFF) }
        }
        #expect(control.events.allSatisfy { $0 == .powerOff })
        #expect(throws: Never.self) { try power.restore(power.saveState()) }
    }
}
