import DavitTesting
import MachineModel
import Synchronization
import Testing

@testable import SoftEngine

/// The APIC timer: Intel SDM vol. 3, 11.5.4. The bus clock has 1 GHz, so a tick of divisor 1 is a nanosecond.
@Suite struct LocalAPICTimerTests {
    let bench = APICBench(vcpus: 1)
    var apic: LocalAPIC { bench.bus[0] }

    init() {
        // Divide by one.
        bench.write(0, 0x3E0, 0xB)
    }

    @Test func oneShot() {
        bench.write(0, 0x320, 0x40)
        bench.write(0, 0x380, 50_000)
        bench.clock.advance(by: 20_000)
        #expect(bench.read(0, 0x390) == 30_000)
        #expect(!apic.hasInterrupt)
        bench.clock.advance(by: 30_000)
        #expect(bench.takeAll(0) == [0x40])
        #expect(bench.read(0, 0x390) == 0)
        #expect(bench.read(0, 0x380) == 50_000)
        #expect(bench.clock.armedTimers == 0)
    }

    @Test func periodic() {
        bench.write(0, 0x320, 0x2_0041)
        bench.write(0, 0x380, 1_000_000)
        var count = 0
        for _ in 0..<40 {
            bench.clock.advance(by: 250_000)
            count += bench.takeAll(0).count
        }
        #expect(count == 10)
        bench.write(0, 0x380, 0)
        #expect(bench.clock.armedTimers == 0)
    }

    @Test(arguments: zip([0, 1, 2, 3, 8, 9, 10, 11] as [UInt32], [2, 4, 8, 16, 32, 64, 128, 1] as [UInt64]))
    func divides(configuration: UInt32, divisor: UInt64) {
        bench.write(0, 0x3E0, configuration)
        bench.write(0, 0x320, 0x40)
        bench.write(0, 0x380, 1000)
        bench.clock.advance(by: 400 * divisor)
        #expect(bench.read(0, 0x390) == 600)
        bench.clock.advance(by: 600 * divisor)
        #expect(bench.takeAll(0) == [0x40])
    }

    @Test func newDivisorKeepsTheCount() {
        bench.write(0, 0x320, 0x40)
        bench.write(0, 0x380, 100_000)
        bench.clock.advance(by: 40_000)
        bench.write(0, 0x3E0, 0)
        #expect(bench.read(0, 0x390) == 60_000)
        bench.clock.advance(by: 60_000)
        #expect(bench.read(0, 0x390) == 30_000)
    }

    @Test func maskedTimerCountsButCostsNothing() {
        bench.write(0, 0x320, 0x1_0040)
        bench.write(0, 0x380, 100_000)
        #expect(bench.clock.armedTimers == 0)
        bench.clock.advance(by: 40_000)
        #expect(bench.read(0, 0x390) == 60_000)
        bench.clock.advance(by: 100_000)
        // It ran out unseen: unmasking does not bring it back.
        bench.write(0, 0x320, 0x40)
        bench.clock.advance(by: 1_000_000)
        #expect(bench.takeAll(0) == [])
    }

    @Test func tscDeadline() {
        // In another mode the MSR takes nothing.
        apic.tscDeadline = 5
        #expect(apic.tscDeadline == 0)
        bench.write(0, 0x320, 0x4_0042)
        let deadline = bench.clock.now * 2 + 200_000
        apic.tscDeadline = deadline
        #expect(apic.tscDeadline == deadline)
        bench.clock.advance(by: 99_999)
        #expect(!apic.hasInterrupt)
        // Rounding to nanoseconds may cost one.
        bench.clock.advance(by: 2)
        #expect(bench.takeAll(0) == [0x42])
        #expect(apic.tscDeadline == 0)
        // Initial and current count mean nothing here.
        bench.write(0, 0x380, 77)
        #expect(bench.read(0, 0x380) == 0)
        #expect(bench.read(0, 0x390) == 0)
    }

    /// Whenever the counter is read it is one further on: the deadline that is one away must not count as passed and ages ahead.
    @Test func tscDeadlineThatPassesMeanwhileIsNotMissed() {
        let counter = Atomic<UInt64>(100)
        let clock = ManualClock()
        let bus = LocalAPICs(
            vcpuCount: 1, clock: clock, tscFrequency: 1_000_000_000,
            hostTSC: { counter.wrappingAdd(1, ordering: .relaxed).newValue }, wake: { _ in })
        bus[0].writeMMIO(offset: 0xF0, width: .four, value: 0x1FF)
        bus[0].writeMMIO(offset: 0x320, width: .four, value: 0x4_0042)
        for ahead: UInt64 in 0..<6 {
            bus[0].tscDeadline = counter.load(ordering: .relaxed) + ahead
            // Each look at the counter moves it on by one.
            for _ in 0..<8 { clock.advance(by: 10) }
            #expect(bus[0].acknowledge() == 0x42)
            bus[0].endOfInterrupt()
        }
    }

    /// A timer is due, and the clock's thread has not come to it yet: who looks at the timer then, or changes it, does not swallow the interrupt.
    @Test(arguments: 0..<4) func aLateThreadLosesNothing(case number: Int) throws {
        bench.write(0, 0x320, number == 0 ? 0x4_0042 : number == 1 ? 0x2_0042 : 0x42)
        if number == 0 { apic.tscDeadline = (bench.clock.now + 1000) * 2 } else { bench.write(0, 0x380, 1000) }
        bench.clock.pass(1500)
        switch number {
        case 0: #expect(apic.tscDeadline == 0)
        case 1, 2: _ = apic.savePage()
        default: bench.write(0, 0x320, 0x1_0042)
        }
        #expect(bench.takeAll(0) == [0x42])
    }

    @Test func tscDeadlineInThePastFiresAtOnce() {
        bench.write(0, 0x320, 0x4_0042)
        apic.tscDeadline = 1
        #expect(bench.takeAll(0) == [0x42])
        #expect(bench.clock.armedTimers == 0)
    }

    @Test func tscDeadlineMovesWithTheTSC() {
        bench.write(0, 0x320, 0x4_0042)
        apic.tscDeadline = bench.clock.now * 2 + 10_000_000
        apic.setTSCOffset(5_000_000)
        bench.clock.advance(by: 2_500_002)
        #expect(bench.takeAll(0) == [0x42])
        // Far beyond what the clock can say.
        apic.tscDeadline = .max
        bench.clock.advance(by: 1_000_000_000)
        #expect(bench.takeAll(0) == [])
    }

    @Test func changingToTSCDeadlineDisarms() {
        bench.write(0, 0x320, 0x40)
        bench.write(0, 0x380, 100_000)
        bench.write(0, 0x320, 0x4_0040)
        apic.tscDeadline = .max >> 1
        bench.write(0, 0x320, 0x40)
        #expect(apic.tscDeadline == 0)
        bench.clock.advance(by: 1_000_000_000)
        #expect(bench.takeAll(0) == [])
        #expect(bench.clock.armedTimers == 0)
    }

    @Test func periodOfOneTickIsBounded() {
        bench.write(0, 0x320, 0x2_0041)
        bench.write(0, 0x380, 1)
        var count = 0
        let step: UInt64 = 10_000
        for _ in 0..<1000 {
            bench.clock.advance(by: step)
            count += bench.takeAll(0).count
        }
        // 10 ms at 50 microseconds each.
        #expect((100...201).contains(count))
    }
}
