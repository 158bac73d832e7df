import MachineModel

extension RTC {
    /// Registers, CMOS RAM and where the guest's time stands to the clock's, under the device's lock.
    ///
    /// While the clock runs its time is worked out from the host's; nothing ticks. While SET or a divider in reset
    /// stops it, time and date are bytes in `ram` like all others.
    struct Chip: Sendable {
        var index: UInt8 = 0
        /// All 128 bytes. Time, date and century count only while the clock stands; A to D stand apart.
        var ram = [UInt8](repeating: 0, count: RTC.size)
        var a = A.initial
        var b = B.hours24
        /// PF, AF and UF.
        var flags: UInt8 = 0
        /// The guest's time less the host's: seconds, and nanoseconds below a second.
        var offsetSeconds: Int64 = 0
        var offsetNanoseconds: Int64 = 0
        /// Added to the weekday that the date has, modulo 7: the chip lets the guest set it to anything.
        var weekdayShift = 0
        /// The divider was in reset since the clock stopped: the first update comes half a second after it starts.
        var wasDividerReset = false
        /// The second in which flags were worked out last.
        var lastSecond: Int64 = 0
        /// The periodic tick at which flags were worked out last, at the rate of A.
        var lastTick: UInt64 = 0
        var irqLevel = false
        var timer: (any VMTimer)?

        var isStopped: Bool { b & B.set != 0 || a & A.dv >= A.dvReset }

        /// Guest time at the host's `wallClock` (nanoseconds since 1970).
        func time(at wallClock: Int64) -> (seconds: Int64, nanoseconds: Int64) {
            let (seconds, nanoseconds) = (wallClock &+ offsetNanoseconds).flooredDivision(by: 1_000_000_000)
            return (seconds &+ offsetSeconds, nanoseconds)
        }

        // MARK: Encoding

        /// A number below 100 as registers hold it: BCD, or binary with DM.
        func encode(_ value: Int) -> UInt8 {
            let value = UInt8(truncatingIfNeeded: value % 100)
            return b & B.dm != 0 ? value : (value / 10) << 4 | value % 10
        }

        func decode(_ value: UInt8) -> Int {
            b & B.dm != 0 ? Int(value) : Int(value >> 4) * 10 + Int(value & 0x0F)
        }

        func encodeHour(_ hour: Int) -> UInt8 {
            if b & B.hours24 != 0 { return encode(hour) }
            return encode((hour + 11) % 12 + 1) | (hour >= 12 ? RTC.pm : 0)
        }

        func decodeHour(_ value: UInt8) -> Int {
            if b & B.hours24 != 0 { return decode(value) }
            return decode(value & ~RTC.pm) % 12 + (value & RTC.pm != 0 ? 12 : 0)
        }

        /// The byte of time or date at `register` for a moment, or nil if it is no such register.
        func field(_ register: Int, of time: CalendarTime) -> UInt8? {
            switch register {
            case Register.seconds: encode(time.second)
            case Register.minutes: encode(time.minute)
            case Register.hours: encodeHour(time.hour)
            case Register.dayOfWeek: encode((time.weekday + weekdayShift) % 7 + 1)
            case Register.dayOfMonth: encode(time.day)
            case Register.month: encode(time.month)
            case Register.year: encode(time.year % 100)
            case Register.century: encode(time.year / 100)
            default: nil
            }
        }

        static let timeRegisters = [
            Register.seconds, Register.minutes, Register.hours, Register.dayOfWeek, Register.dayOfMonth, Register.month,
            Register.year, Register.century,
        ]

        // MARK: Stopping and starting

        /// Puts time and date into `ram`, as they are when the clock stops.
        mutating func freeze(at seconds: Int64) {
            let time = CalendarTime(seconds: seconds)
            for register in Self.timeRegisters { ram[register] = field(register, of: time) ?? 0 }
        }

        /// Lets time go on from what stands in `ram`, `nanoseconds` into that second.
        mutating func thaw(at wallClock: Int64, nanoseconds: Int64) {
            let time = CalendarTime(
                year: min(decode(ram[Register.century]), 99) * 100 + min(decode(ram[Register.year]), 99),
                month: decode(ram[Register.month]), day: decode(ram[Register.dayOfMonth]),
                hour: decodeHour(ram[Register.hours]), minute: decode(ram[Register.minutes]),
                second: decode(ram[Register.seconds]))
            weekdayShift = ((decode(ram[Register.dayOfWeek]) - 1 - time.weekday) % 7 + 7) % 7
            let (hostSeconds, hostNanoseconds) = wallClock.flooredDivision(by: 1_000_000_000)
            offsetNanoseconds = nanoseconds - hostNanoseconds
            offsetSeconds = time.seconds &- hostSeconds
            lastSecond = time.seconds
        }

        // MARK: Flags

        /// Sets the flags of what has happened since they were worked out last.
        mutating func catchUp(wallClock: Int64, now: UInt64) {
            let tick = tick(at: now)
            if tick != lastTick, rateShift != nil { flags |= C.pf }
            lastTick = tick
            guard !isStopped else { return }
            let second = time(at: wallClock).seconds
            guard second != lastSecond else { return }
            flags |= C.uf
            if second > lastSecond, let alarm = nextAlarm(after: lastSecond), alarm <= second { flags |= C.af }
            lastSecond = second
        }

        /// Crystal periods per periodic tick, as a power of two; nil when RS turns ticks off.
        var rateShift: UInt64? {
            switch a & A.rs {
            case 0: nil
            // With this crystal the two fastest rates are those of 8 and 9.
            case 1: 7
            case 2: 8
            case let rate: UInt64(rate) - 1
            }
        }

        /// The number of the periodic tick that came last before `now`.
        func tick(at now: UInt64) -> UInt64 { Frequency.ticks(in: now, at: RTC.crystal) >> (rateShift ?? 0) }

        /// The first second after `second` at which the alarm bytes match, within a day; nil if they match none.
        func nextAlarm(after second: Int64) -> Int64? {
            func values(_ count: Int, _ alarm: Int, _ encode: (Int) -> UInt8) -> [Int] {
                let byte = ram[alarm]
                return byte >= RTC.anyAlarm ? Array(0..<count) : (0..<count).filter { encode($0) == byte }
            }
            let hours = values(24, Register.hoursAlarm, encodeHour)
            let minutes = values(60, Register.minutesAlarm, encode)
            let seconds = values(60, Register.secondsAlarm, encode)
            guard let firstHour = hours.first, let firstMinute = minutes.first, let firstSecond = seconds.first else {
                return nil
            }
            let (days, secondOfDay) = (second &+ 1).flooredDivision(by: CalendarTime.secondsPerDay)
            let (hour, minute, low) = (Int(secondOfDay / 3600), Int(secondOfDay / 60 % 60), Int(secondOfDay % 60))
            let found: Int
            if hours.contains(hour), minutes.contains(minute), let match = seconds.first(where: { $0 >= low }) {
                found = hour * 3600 + minute * 60 + match
            } else if hours.contains(hour), let match = minutes.first(where: { $0 > minute }) {
                found = hour * 3600 + match * 60 + firstSecond
            } else if let match = hours.first(where: { $0 > hour }) {
                found = match * 3600 + firstMinute * 60 + firstSecond
            } else {
                found = Int(CalendarTime.secondsPerDay) + firstHour * 3600 + firstMinute * 60 + firstSecond
            }
            return days &* CalendarTime.secondsPerDay &+ Int64(found)
        }

        /// Nanoseconds on the machine's clock at which the next enabled flag can come, or nil.
        func nextEvent(wallClock: Int64, now: UInt64) -> UInt64? {
            // One flag holds the line already; nothing more can be seen until C is read.
            guard flags & b == 0 else { return nil }
            var deadline: UInt64?
            func consider(_ time: UInt64) { deadline = min(deadline ?? time, time) }
            if b & B.pie != 0, let rateShift {
                consider(Frequency.time(of: (tick(at: now) &+ 1) << rateShift, at: RTC.crystal))
            }
            guard !isStopped, b & (B.uie | B.aie) != 0 else { return deadline }
            let (seconds, nanoseconds) = time(at: wallClock)
            let nextSecond = now &+ UInt64(1_000_000_000 - nanoseconds)
            if b & B.uie != 0 { consider(nextSecond) }
            if b & B.aie != 0, let alarm = nextAlarm(after: seconds) {
                consider(nextSecond &+ UInt64(alarm - seconds - 1) * 1_000_000_000)
            }
            return deadline
        }
    }
}
