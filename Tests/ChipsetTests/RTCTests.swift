import DavitTesting
import MachineModel
import Testing

@testable import Chipset

@Suite struct RTCTests {
    /// 2024-02-29 12:34:56 UTC, a Thursday.
    let clock = ManualClock()
    let irq = RecordingIRQLine()
    let rtc: RTC

    static let second: UInt64 = 1_000_000_000

    init() { rtc = RTC(irq: irq, clock: clock, memoryBelow4G: 3 << 30, memoryAbove4G: 5 << 30) }

    func get(_ register: UInt8) -> UInt8 {
        rtc.out(0, register)
        return rtc.byte(1)
    }

    func set(_ register: UInt8, _ value: UInt8) {
        rtc.out(0, register)
        rtc.out(1, value)
    }

    /// Century, year, month, day, hour, minute, second, weekday.
    var time: [UInt8] { [0x32, 9, 8, 7, 4, 2, 0, 6].map { get($0) } }

    // MARK: Reading the time

    @Test func showsTheHostsTimeInBCD() {
        #expect(time == [0x20, 0x24, 0x02, 0x29, 0x12, 0x34, 0x56, 0x05])
        clock.advance(by: 12 * 3600 * Self.second)
        #expect(time == [0x20, 0x24, 0x03, 0x01, 0x00, 0x34, 0x56, 0x06])
    }

    @Test func showsBinaryAndTwelveHours() {
        set(0x0B, 0x06)
        #expect(time == [20, 24, 2, 29, 12, 34, 56, 5])
        set(0x0B, 0x04)
        #expect(get(4) == 12 | 0x80, "noon is 12 PM")
        clock.advance(by: 3600 * Self.second)
        #expect(get(4) == 1 | 0x80)
        clock.advance(by: 11 * 3600 * Self.second)
        #expect(get(4) == 12, "midnight is 12 AM")
        set(0x0B, 0x00)
        clock.advance(by: 23 * 3600 * Self.second)
        #expect(get(4) == 0x91)
    }

    @Test func followsTheHostsClock() {
        clock.setWallClock(0)
        #expect(time == [0x19, 0x70, 0x01, 0x01, 0x00, 0x00, 0x00, 0x05])
    }

    @Test func updateInProgressWarns() {
        #expect(get(0x0A) == 0x26)
        clock.advance(by: Self.second - 244_001)
        #expect(get(0x0A) == 0x26)
        clock.advance(by: 1)
        #expect(get(0x0A) == 0xA6)
        clock.advance(by: 243_999)
        #expect(get(0x0A) == 0xA6)
        #expect(get(0) == 0x56)
        clock.advance(by: 1)
        #expect(get(0x0A) == 0x26)
        #expect(get(0) == 0x57)
    }

    @Test func theIndexMasksNMIAndCannotBeReadBack() {
        #expect(get(0x80 | 0x0D) == 0x80)
        #expect(rtc.byte(0) == 0xFF)
    }

    // MARK: Setting the time

    /// As Linux does: SET, divider in reset, bytes, divider on, SET off.
    @Test func theGuestSetsTheTime() {
        set(0x0B, 0x82)
        set(0x0A, 0x76)
        for (register, value) in [
            (0, 0x30), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99), (0x32, 0x19), (6, 0x06),
        ] as [(UInt8, UInt8)] {
            set(register, value)
            #expect(get(register) == value)
        }
        clock.advance(by: 5 * Self.second)
        #expect(get(0) == 0x30, "it stands still")
        #expect(get(0x0A) & 0x80 == 0)
        set(0x0B, 0x02)
        #expect(get(0) == 0x30, "the divider still holds it")
        set(0x0A, 0x26)
        #expect(time == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x30, 0x06])
        // The first update comes half a second after the divider starts.
        clock.advance(by: Self.second / 2 - 1)
        #expect(get(0) == 0x30)
        clock.advance(by: 1)
        #expect(get(0) == 0x31)
        clock.advance(by: 29 * Self.second)
        #expect(time == [0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00, 0x07])
    }

    @Test func setAloneKeepsTheFractionOfTheSecond() {
        clock.advance(by: Self.second / 4)
        set(0x0B, 0x82)
        set(0, 0x10)
        clock.advance(by: Self.second / 4)
        set(0x0B, 0x02)
        clock.advance(by: Self.second / 2)
        #expect(get(0) == 0x11)
    }

    @Test func aByteWrittenWhileTimeRunsChangesAlone() {
        set(4, 0x07)
        #expect(time == [0x20, 0x24, 0x02, 0x29, 0x07, 0x34, 0x56, 0x05])
    }

    @Test func theGuestsWeekdayIsItsOwn() {
        set(6, 0x01)
        #expect(get(6) == 0x01)
        clock.advance(by: 86_400 * Self.second)
        #expect(get(6) == 0x02)
    }

    @Test func nonsenseBecomesTheNearestTime() {
        set(0x0B, 0x82)
        for register in [0, 2, 4, 6, 7, 8, 9, 0x32] as [UInt8] { set(register, 0xFF) }
        set(0x0B, 0x02)
        #expect(time.prefix(7) == [0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59])
        clock.advance(by: Self.second)
        #expect(time.prefix(7) == [0x00, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00])
    }

    // MARK: Interrupts

    @Test func updateEndedInterruptsOnceASecond() {
        set(0x0B, 0x12)
        #expect(!irq.level)
        clock.advance(by: Self.second)
        #expect(irq.level)
        clock.advance(by: Self.second)
        #expect(irq.risingEdges == 1, "until C is read nothing more comes")
        #expect(get(0x0C) & 0x90 == 0x90)
        #expect(!irq.level)
        #expect(get(0x0C) == 0)
        clock.advance(by: Self.second)
        #expect(irq.risingEdges == 2)
    }

    @Test func flagsComeWithoutTheirInterrupts() {
        _ = get(0x0C)
        clock.advance(by: Self.second)
        #expect(get(0x0C) == 0x50, "UF and PF, and no IRQF")
        #expect(clock.armedTimers == 0)
    }

    @Test func theAlarmComesOnTime() {
        set(0x01, 0x00)
        set(0x03, 0x36)
        set(0x05, 0x12)
        set(0x0B, 0x22)
        clock.advance(by: 63 * Self.second)
        #expect(!irq.level)
        clock.advance(by: Self.second)
        #expect(irq.level)
        #expect(get(0x0C) & 0xA0 == 0xA0)
        // The next day it comes again.
        clock.advance(by: 86_399 * Self.second)
        #expect(!irq.level)
        clock.advance(by: Self.second)
        #expect(irq.level)
    }

    @Test func alarmBytesMatchAnything() {
        // Any minute at second 10.
        set(0x01, 0x10)
        set(0x03, 0xC0)
        set(0x05, 0xFF)
        set(0x0B, 0x22)
        clock.advance(by: 13 * Self.second)
        #expect(!irq.level)
        clock.advance(by: Self.second)
        #expect(irq.level)
        _ = get(0x0C)
        clock.advance(by: 60 * Self.second)
        #expect(irq.risingEdges == 2)
    }

    @Test func anAlarmThatNeverMatchesNeverComes() {
        set(0x01, 0x61)
        set(0x0B, 0x22)
        #expect(clock.armedTimers == 0)
        clock.advance(by: 200_000 * Self.second)
        #expect(get(0x0C) & 0x20 == 0)
    }

    @Test(
        arguments: [(6, 976_563), (15, 500_000_000), (3, 122_071), (1, 3_906_250), (2, 7_812_500)] as [(UInt8, UInt64)])
    func periodicInterruptsFollowTheRate(rate: UInt8, nanoseconds: UInt64) {
        set(0x0A, 0x20 | rate)
        _ = get(0x0C)
        set(0x0B, 0x42)
        for count in 1...4 as ClosedRange<UInt64> {
            clock.advance(to: count * nanoseconds - count)
            #expect(!irq.level, "tick \(count)")
            clock.advance(to: count * nanoseconds)
            #expect(irq.level, "tick \(count)")
            #expect(get(0x0C) & 0xC0 == 0xC0)
        }
    }

    @Test func rateZeroIsNoRate() {
        set(0x0A, 0x20)
        _ = get(0x0C)
        set(0x0B, 0x42)
        #expect(clock.armedTimers == 0)
        clock.advance(by: 10 * Self.second)
        #expect(get(0x0C) & 0x40 == 0)
    }

    @Test func setTakesTheUpdateInterruptBack() {
        set(0x0B, 0x92)
        #expect(get(0x0B) == 0x82)
    }

    @Test func resetTurnsInterruptsOffAndKeepsTime() {
        set(4, 0x07)
        set(0x40, 0x5A)
        set(0x0B, 0x72)
        clock.advance(by: Self.second)
        rtc.reset()
        #expect(!irq.level)
        #expect(get(0x0B) == 0x02)
        #expect(get(0x0C) == 0)
        #expect(get(4) == 0x07)
        #expect(get(0x40) == 0x5A)
    }

    // MARK: CMOS RAM

    @Test func cmosSaysHowMuchMemoryThereIs() {
        func word(_ register: UInt8) -> UInt { UInt(get(register)) | UInt(get(register + 1)) << 8 }
        #expect(word(0x15) == 640)
        #expect(word(0x17) == 0xFFFF)
        #expect(word(0x30) == 0xFFFF)
        #expect(word(0x34) == ((3 << 30) - (16 << 20)) >> 16)
        #expect(word(0x5B) | UInt(get(0x5D)) << 16 == (5 << 30) >> 16)
    }

    @Test func aSmallMachineIsNotedAsSmall() {
        let rtc = RTC(irq: irq, clock: clock, memoryBelow4G: 8 << 20, memoryAbove4G: 0)
        #expect(rtc.cmos(at: 0x17) == 0x00)
        #expect(rtc.cmos(at: 0x18) == 0x1C, "7 MiB in KiB")
        #expect(rtc.cmos(at: 0x34) == 0)
    }

    @Test func otherBytesAreRAM() {
        for register in UInt8(0x0E)..<0x80 where register != 0x32 { set(register, register ^ 0x55) }
        for register in UInt8(0x0E)..<0x80 where register != 0x32 { #expect(get(register) == register ^ 0x55) }
        set(0x0D, 0)
        #expect(get(0x0D) == 0x80)
    }

    // MARK: Calendar

    @Test func theCalendarKnowsLeapYears() {
        for (seconds, expected) in [
            (0, [1970, 1, 1, 4]), (951_782_400, [2000, 2, 29, 2]), (4_107_456_000, [2100, 2, 28, 0]),
            (4_107_542_400, [2100, 3, 1, 1]), (-86_400, [1969, 12, 31, 3]), (253_402_214_400, [9999, 12, 31, 5]),
        ] as [(Int64, [Int])] {
            let time = CalendarTime(seconds: seconds)
            #expect([time.year, time.month, time.day, time.weekday] == expected)
            #expect(time.seconds == seconds)
        }
        var random = SplitMix(seed: 1)
        for _ in 0..<10_000 {
            let seconds = Int64.random(in: 0...253_402_300_799, using: &random)
            #expect(CalendarTime(seconds: seconds).seconds == seconds)
        }
    }

    // MARK: State

    @Test func stateSurvivesSaveAndRestore() throws {
        set(4, 0x07)
        set(0x40, 0x5A)
        set(0x0B, 0x12)
        clock.advance(by: Self.second)
        let state = rtc.saveState()
        let line = RecordingIRQLine()
        let other = RTC(irq: line, clock: clock, memoryBelow4G: 1 << 20, memoryAbove4G: 0)
        try other.restore(state)
        #expect(line.level)
        #expect(other.saveState() == state)
        other.out(0, 4)
        #expect(other.byte(1) == 0x07)
    }

    /// What a machine does that makes its chips anew at each reset.
    @Test func theBatteryOutlivesTheMachinesReset() throws {
        set(4, 0x07)
        set(0x0B, 0x12)
        let next = RTC(irq: irq, clock: clock, memoryBelow4G: 3 << 30, memoryAbove4G: 5 << 30)
        try next.restore(rtc.saveState())
        next.reset()
        next.out(0, 4)
        #expect(next.byte(1) == 0x07)
        next.out(0, 0x0B)
        #expect(next.byte(1) == 0x02)
    }

    @Test func impossibleStatesAreRefused() {
        let good = rtc.saveState()
        let lies: [(inout RTCState) -> Void] = [
            { $0.version = 7 }, { $0.ram = [] }, { $0.ram.append(0) }, { $0.a = 0x80 }, { $0.flags = 0x80 },
            { $0.offsetSeconds = Int64.max }, { $0.offsetSeconds = Int64.min }, { $0.offsetNanoseconds = Int64.min },
            { $0.offsetNanoseconds = 1_000_000_000 }, { $0.weekdayShift = 7 }, { $0.weekdayShift = -1 },
        ]
        for lie in lies {
            var state = good
            lie(&state)
            #expect(throws: InvalidDeviceState.self) { try rtc.restore(state) }
        }
        #expect(rtc.saveState() == good)
    }

    @Test func anyAccessIsSurvived() {
        var random = SplitMix(seed: 0x146818)
        for _ in 0..<50_000 {
            let value = random.next()
            // Mostly the registers proper, at times all of CMOS RAM.
            if value & 1 == 0 { rtc.out(0, UInt8(truncatingIfNeeded: value >> 32) & (value & 6 == 0 ? 0xFF : 0x0F)) }
            rtc.hammer(offset: UInt16(value >> 3 & 1), value: value, widths: 3)
            if value >> 56 == 0 { clock.advance(by: value >> 20 & 0xFFF_FFFF) }
            if value >> 52 == 1 { clock.setWallClock(Int64(bitPattern: random.next())) }
        }
        #expect(throws: Never.self) { try rtc.restore(rtc.saveState()) }
    }
}
