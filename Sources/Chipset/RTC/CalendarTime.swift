/// A moment of the proleptic Gregorian calendar in UTC, to the second.
struct CalendarTime: Equatable, Sendable {
    /// From 0 to 9999 when it comes from the RTC.
    var year: Int
    /// 1 to 12.
    var month: Int
    /// 1 to 31.
    var day: Int
    var hour: Int
    var minute: Int
    var second: Int
    /// 0 is Sunday.
    var weekday: Int

    static let secondsPerDay: Int64 = 86_400

    /// `seconds` since 1970.
    init(seconds: Int64) {
        let (days, rest) = seconds.flooredDivision(by: Self.secondsPerDay)
        hour = Int(rest / 3600)
        minute = Int(rest / 60 % 60)
        second = Int(rest % 60)
        weekday = Int((days &+ 4).flooredDivision(by: 7).remainder)
        // Count from 1 March 0000, so that the leap day is the last of its year; 400 years have 146097 days.
        let (era, dayOfEra) = (days &+ 719_468).flooredDivision(by: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        day = Int(dayOfYear - (153 * marchMonth + 2) / 5 + 1)
        month = Int(marchMonth < 10 ? marchMonth + 3 : marchMonth - 9)
        year = Int(era * 400 + yearOfEra + (month <= 2 ? 1 : 0))
    }

    /// Values out of range are brought to the nearest that there is; years from 0 to 9999.
    init(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
        self.year = min(max(year, 0), 9999)
        self.month = min(max(month, 1), 12)
        self.day = min(max(day, 1), Self.days(in: self.month, of: self.year))
        self.hour = min(max(hour, 0), 23)
        self.minute = min(max(minute, 0), 59)
        self.second = min(max(second, 0), 59)
        weekday = 0
        weekday = Int((seconds.flooredDivision(by: Self.secondsPerDay).quotient + 4).flooredDivision(by: 7).remainder)
    }

    /// Seconds since 1970.
    var seconds: Int64 {
        let marchYear = Int64(month <= 2 ? year - 1 : year)
        let (era, yearOfEra) = marchYear.flooredDivision(by: 400)
        let marchMonth = Int64(month > 2 ? month - 3 : month + 9)
        let dayOfYear = (153 * marchMonth + 2) / 5 + Int64(day) - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        return days * Self.secondsPerDay + Int64(hour * 3600 + minute * 60 + second)
    }

    private static func days(in month: Int, of year: Int) -> Int {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }
}

extension Int64 {
    /// The quotient rounded down, and the remainder, which is never negative. `divisor` is above zero.
    func flooredDivision(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
