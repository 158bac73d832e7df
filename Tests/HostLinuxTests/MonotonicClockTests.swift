import Glibc
import Synchronization
import Testing

@testable import HostLinux

@Suite(.serialized) struct MonotonicClockTests {
    /// Times at which an alarm fired.
    final class Record: Sendable {
        let times = Mutex<[UInt64]>([])
        func add(_ time: UInt64) { times.withLock { $0.append(time) } }
        var all: [UInt64] { times.withLock { $0 } }

        /// Waits for `count` times, at most two seconds.
        func wait(for count: Int) -> [UInt64] {
            for _ in 0..<2000 where all.count < count { usleep(1000) }
            return all
        }
    }

    @Test func timeMovesFromZero() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let first = clock.now
        #expect(first < 1_000_000_000)
        usleep(2000)
        #expect(clock.now >= first + 2_000_000)
        #expect(clock.wallClock > 1_700_000_000_000_000_000)
    }

    @Test func alarmsFireOnceAndNotEarly() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let record = Record()
        let alarm = clock.makeAlarm { record.add(clock.now) }
        let deadline = clock.now + 5_000_000
        alarm.set(at: deadline)
        let times = record.wait(for: 1)
        #expect(times.count == 1)
        #expect(times[0] >= deadline)
        usleep(10_000)
        #expect(record.all.count == 1)
        // A deadline that is past.
        alarm.set(at: 0)
        #expect(record.wait(for: 2).count == 2)
    }

    @Test func earlierDeadlineReplacesTheLater() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let record = Record()
        let alarm = clock.makeAlarm { record.add(clock.now) }
        alarm.set(at: clock.now + 3_600_000_000_000)
        usleep(2000)
        let soon = clock.now + 3_000_000
        alarm.set(at: soon)
        let times = record.wait(for: 1)
        #expect(times.count == 1)
        #expect(times[0] < soon + 1_000_000_000)
    }

    @Test func clearedAlarmDoesNotFire() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let record = Record()
        let alarm = clock.makeAlarm { record.add(0) }
        alarm.set(at: clock.now + 3_000_000)
        alarm.clear()
        // An alarm that is let go does not fire either, and its place is used again.
        var other: MonotonicClock.Alarm? = clock.makeAlarm { record.add(1) }
        other?.set(at: clock.now + 3_000_000)
        other = nil
        let third = clock.makeAlarm { record.add(2) }
        third.set(at: clock.now + 6_000_000)
        #expect(record.wait(for: 1) == [2])
        usleep(5000)
        #expect(record.all == [2])
    }

    @Test func alarmThatSetsItselfLetsOthersFire() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let record = Record()
        let greedy = Mutex<MonotonicClock.Alarm?>(nil)
        let alarm = clock.makeAlarm { greedy.withLock { $0?.set(at: clock.now) } }
        greedy.withLock { $0 = alarm }
        alarm.set(at: 0)
        let other = clock.makeAlarm { record.add(1) }
        other.set(at: clock.now + 2_000_000)
        #expect(record.wait(for: 1) == [1])
        greedy.withLock { $0 = nil }
    }

    @Test func timeStandsStillWhilePaused() throws {
        let clock = try MonotonicClock(threadName: "test-clock")
        defer { clock.shutDown() }
        let record = Record()
        let alarm = clock.makeAlarm { record.add(clock.now) }
        let deadline = clock.now + 5_000_000
        alarm.set(at: deadline)
        clock.pause()
        let stopped = clock.now
        usleep(20_000)
        #expect(clock.now == stopped)
        #expect(record.all.isEmpty)
        clock.resume()
        let times = record.wait(for: 1)
        #expect(times.count == 1)
        #expect(times[0] >= deadline)
        #expect(times[0] < stopped + 1_000_000_000)
    }

    /// An idle guest must cost next to nothing.
    @Test func sleepsWhileNothingIsSet() throws {
        let clock = try MonotonicClock(threadName: "test-idle")
        defer { clock.shutDown() }
        let record = Record()
        let alarm = clock.makeAlarm { record.add(0) }
        alarm.set(at: 0)
        #expect(record.wait(for: 1).count == 1)
        usleep(20_000)
        let thread = try #require(threads().first { line("/proc/self/task/\($0)/comm", prefix: "test-idle") != nil })
        let before = contextSwitches(thread)
        // Moved about, far away: no reason to wake.
        for i in 0..<1000 { alarm.set(at: clock.now + 60_000_000_000 + UInt64(i)) }
        alarm.clear()
        usleep(100_000)
        #expect(contextSwitches(thread) - before <= 2)
        #expect(record.all.count == 1)
    }

    /// Threads of this process.
    private func threads() -> [Int] {
        guard let directory = opendir("/proc/self/task") else { return [] }
        defer { closedir(directory) }
        var found: [Int] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let thread = Int(name) { found.append(thread) }
        }
        return found
    }

    private func contextSwitches(_ thread: Int) -> Int {
        let text = line("/proc/self/task/\(thread)/status", prefix: "voluntary_ctxt_switches:")
        return text.flatMap { Int($0.filter(\.isNumber)) } ?? -1
    }

    /// The first line of a file that begins with `prefix`.
    private func line(_ path: String, prefix: String) -> String? {
        guard let file = fopen(path, "r") else { return nil }
        defer { fclose(file) }
        var buffer = [CChar](repeating: 0, count: 256)
        while fgets(&buffer, 256, file) != nil {
            let text = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            if text.hasPrefix(prefix) { return text }
        }
        return nil
    }
}
