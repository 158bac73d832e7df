import DavitTesting
import MachineModel
import Synchronization
import Testing

@testable import Chipset

@Suite struct WatchdogTests {
    private let clock = ManualClock(now: 5_000_000_000)
    private let expiries = Counter()
    private let isHeld = Counter()

    private final class Counter: Sendable {
        private let value = Atomic<Int>(0)
        var count: Int { value.load(ordering: .relaxed) }
        func add(_ number: Int = 1) { value.add(number, ordering: .relaxed) }
    }

    private func make(hasExpired: Bool = false) -> Watchdog {
        Watchdog(clock: clock, hasExpired: hasExpired, isHeld: { [isHeld] in isHeld.count > 0 }) { [expiries] in
            expiries.add()
        }
    }

    private func seconds(_ number: UInt64) { clock.advance(by: number * 1_000_000_000) }

    private func word(_ watchdog: Watchdog, _ offset: UInt16) -> UInt32 {
        watchdog.readPort(offset: offset, width: .two)
    }

    /// Three seconds, started.
    private func start(_ watchdog: Watchdog) {
        watchdog.writePort(offset: Watchdog.Register.preset, width: .two, value: 30)
        watchdog.out(Watchdog.Register.control, Watchdog.Control.running)
    }

    @Test func expiresUnlessReloaded() {
        let watchdog = make()
        start(watchdog)
        for _ in 0..<5 {
            seconds(2)
            #expect(word(watchdog, Watchdog.Register.count) == 10)
            watchdog.out(Watchdog.Register.reload, 1)
        }
        seconds(2)
        #expect(expiries.count == 0)
        seconds(1)
        #expect(expiries.count == 1)
        #expect(watchdog.byte(Watchdog.Register.status) == 1)
        #expect(watchdog.byte(Watchdog.Register.control) == 0)
        watchdog.out(Watchdog.Register.status, 1)
        #expect(watchdog.byte(Watchdog.Register.status) == 0)
        seconds(100)
        #expect(expiries.count == 1 && clock.armedTimers == 0)
    }

    @Test func stoppedItDoesNothing() {
        let watchdog = make()
        seconds(1000)
        start(watchdog)
        seconds(2)
        watchdog.out(Watchdog.Register.control, Watchdog.Control.resets)
        seconds(1000)
        #expect(expiries.count == 0)
        #expect(watchdog.byte(Watchdog.Register.control) == Watchdog.Control.resets)
        #expect(word(watchdog, Watchdog.Register.count) == 30)
    }

    /// Setting what it already is (a read, a change of another bit, a write) is not a reload.
    @Test func settingAnotherBitIsNoReload() {
        let watchdog = make()
        start(watchdog)
        seconds(2)
        watchdog.out(Watchdog.Register.control, Watchdog.Control.running | Watchdog.Control.resets)
        seconds(1)
        #expect(expiries.count == 1)
    }

    /// While the user has the machine paused the guest cannot reload it.
    @Test func beginsAnewWhileTheGuestIsHeld() {
        let watchdog = make()
        start(watchdog)
        isHeld.add()
        seconds(60)
        isHeld.add(-1)
        #expect(expiries.count == 0)
        seconds(2)
        watchdog.out(Watchdog.Register.reload, 1)
        seconds(2)
        #expect(expiries.count == 0)
        seconds(1)
        #expect(expiries.count == 1)
    }

    @Test func aResetMachineIsToldWhy() {
        #expect(make(hasExpired: true).byte(Watchdog.Register.status) == 1)
        #expect(make().byte(Watchdog.Register.status) == 0)
    }

    /// 11: any access of any width, and counts of 0.
    @Test func anyAccessIsSurvived() {
        let watchdog = make()
        var random = SplitMix(seed: 1)
        for _ in 0..<20_000 {
            watchdog.hammer(offset: UInt16(random.next() % 8), value: random.next(), widths: 3)
            clock.advance(by: random.next() % 200_000_000)
        }
        watchdog.writePort(offset: Watchdog.Register.preset, width: .two, value: 0)
        watchdog.out(Watchdog.Register.control, 0)
        watchdog.out(Watchdog.Register.control, 1)
        let before = expiries.count
        clock.advance(by: 100_000_000)
        #expect(expiries.count == before + 1)
    }
}
