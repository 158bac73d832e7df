// The APIC timer: Intel SDM vol. 3, 11.5.4. It counts a bus clock of 1 GHz, divided; so a tick is a number of nanoseconds.
//
// Nothing ticks: counts are computed from the clock when they are read, and the clock's timer is armed only while an interrupt can come of it.

import MachineModel
import Synchronization

extension LocalAPIC {
    /// Guarded by `LocalAPIC.timer`: the vCPU thread programs it, the clock's thread expires it. Under this lock only the clock and the
    /// lock-free way to a vCPU are called.
    struct TimerState {
        var timer: (any VMTimer)?
        /// The count that runs: `initialCount` ticks of `divisor` nanoseconds from `start`; 0 is a stopped timer.
        var initialCount: UInt32 = 0
        var divisor: UInt64 = 2
        /// Nanoseconds on the clock.
        var start: UInt64 = 0
        /// IA32_TSC_DEADLINE; 0 is disarmed.
        var tscDeadline: UInt64 = 0
        /// Guest TSC less host TSC.
        var tscOffset: UInt64 = 0

        /// Nanoseconds that the whole count takes: at most 2^39.
        var period: UInt64 { UInt64(initialCount) &* divisor }

        mutating func disarm() {
            initialCount = 0
            divisor = 2
            tscDeadline = 0
            timer?.cancel()
        }
    }

    /// Periodic interrupts come at most this often, in nanoseconds, whatever the count: those between are lost, as they are to a
    /// CPU that is not fast enough. It bounds what a guest can make the clock's thread do.
    static var shortestPeriod: UInt64 { 50_000 }

    private var timerEntry: UInt32 { registers[APICRegister.LVTTimer] }

    // MARK: registers

    func writeInitialCount(_ value: UInt32) {
        timer.withLock { state in
            guard timerEntry & APICLVT.timerTSCDeadline == 0 else { return }
            registers[APICRegister.initialCount] = value
            state.initialCount = value
            state.start = bus.clock.now
            schedule(&state)
        }
    }

    func readCurrentCount() -> UInt32 {
        timer.withLock { currentCount($0) }
    }

    private func currentCount(_ state: borrowing TimerState) -> UInt32 {
        guard state.initialCount != 0, timerEntry & APICLVT.timerTSCDeadline == 0 else { return 0 }
        let elapsed = bus.clock.now &- state.start
        let period = state.period
        if timerEntry & APICLVT.timerPeriodic != 0 {
            return UInt32(truncatingIfNeeded: (period &- elapsed % period &+ state.divisor &- 1) / state.divisor)
        }
        return elapsed >= period
            ? 0 : UInt32(truncatingIfNeeded: (period &- elapsed &+ state.divisor &- 1) / state.divisor)
    }

    /// Bits 0, 1 and 3 (figure 11-10): 2, 4, ... 128, 1. A running count goes on at the new speed.
    func writeDivideConfiguration(_ value: UInt32) {
        timer.withLock { state in
            registers[APICRegister.divideConfiguration] = value
            restart(&state, count: currentCount(state), divisor: Self.divisor(value))
            schedule(&state)
        }
    }

    static func divisor(_ configuration: UInt32) -> UInt64 {
        let code = configuration & 3 | configuration >> 1 & 4
        return 1 << UInt64((code &+ 1) & 7)
    }

    /// Sets `start` so that `count` ticks are left.
    private func restart(_ state: inout TimerState, count: UInt32, divisor: UInt64) {
        state.divisor = divisor
        let done = UInt64(state.initialCount &- min(count, state.initialCount))
        state.start = bus.clock.now &- done &* divisor
    }

    func writeTimerLVT(_ value: UInt32) {
        timer.withLock { state in
            let changed = timerEntry ^ value
            // What ran out under the old entry fires under it, or not at all.
            catchUp(&state)
            registers[APICRegister.LVTTimer] = value
            // To and from TSC-deadline mode the timer is disarmed (11.5.4.1).
            if changed & APICLVT.timerTSCDeadline != 0 {
                state.initialCount = 0
                registers[APICRegister.initialCount] = 0
                state.tscDeadline = 0
            }
            schedule(&state)
        }
    }

    /// IA32_TSC_DEADLINE, MSR 0x6E0, in cycles of the guest's TSC; 0 when disarmed, when it has fired, or in another mode.
    var tscDeadline: UInt64 {
        get {
            timer.withLock { state in
                catchUp(&state)
                return state.tscDeadline
            }
        }
        set {
            timer.withLock { state in
                guard timerEntry & APICLVT.timerMode == APICLVT.timerTSCDeadline else { return }
                state.tscDeadline = newValue
                schedule(&state)
            }
        }
    }

    /// To be told whenever the guest's TSC gets another distance from the host's (IA32_TSC, IA32_TSC_ADJUST, resume): an armed deadline moves with it.
    func setTSCOffset(_ offset: UInt64) {
        timer.withLock { state in
            state.tscOffset = offset
            if state.tscDeadline != 0 { schedule(&state) }
        }
    }

    // MARK: expiry

    /// On the clock's thread.
    func timerFired() {
        timer.withLock { schedule(&$0) }
    }

    /// Delivers what is due, even if the clock's thread has not come to it yet, and stops what has run out while it was masked.
    private func catchUp(_ state: inout TimerState) {
        schedule(&state)
        if state.tscDeadline != 0, bus.hostTSC() &+ state.tscOffset >= state.tscDeadline { state.tscDeadline = 0 }
        if timerEntry & APICLVT.timerMode == 0, state.initialCount != 0, bus.clock.now &- state.start >= state.period {
            state.initialCount = 0
        }
    }

    /// Delivers the interrupt that is due and arms the clock for the next one, if there is to be one.
    private func schedule(_ state: inout TimerState) {
        let entry = timerEntry
        let isMasked = entry & APICLVT.masked != 0
        let now = bus.clock.now
        switch entry & APICLVT.timerMode {
        case APICLVT.timerTSCDeadline:
            if state.tscDeadline == 0 || isMasked { break }
            // One reading for both: a deadline that passes between two would lie ages ahead.
            let tsc = bus.hostTSC() &+ state.tscOffset
            if tsc >= state.tscDeadline {
                state.tscDeadline = 0
                raise(entry)
                break
            }
            let cycles = state.tscDeadline &- tsc
            state.timer?.arm(at: now.addingSaturated(nanoseconds(cycles: cycles)))
            return
        case APICLVT.timerPeriodic:
            if state.initialCount == 0 || isMasked { break }
            let period = state.period
            let elapsed = now &- state.start
            if elapsed >= period {
                state.start = now &- elapsed % period
                raise(entry)
            }
            state.timer?.arm(at: max(state.start &+ period, elapsed >= period ? now &+ Self.shortestPeriod : 0))
            return
        case 0:
            if state.initialCount == 0 || isMasked { break }
            let period = state.period
            if now &- state.start < period {
                state.timer?.arm(at: state.start &+ period)
                return
            }
            state.initialCount = 0
            raise(entry)
        default: break
        }
        state.timer?.cancel()
    }

    private func raise(_ entry: UInt32) {
        accept(vector: UInt8(truncatingIfNeeded: entry), levelTriggered: false)
    }

    /// Rounded up, at least one: the interrupt never comes before its time.
    private func nanoseconds(cycles: UInt64) -> UInt64 {
        let product = cycles.multipliedFullWidth(by: 1_000_000_000)
        guard product.high < bus.tscFrequency else { return .max }
        return bus.tscFrequency.dividingFullWidth(product).quotient.addingSaturated(1)
    }

    // MARK: saved state

    /// The count left, for a saved state. What is due is delivered: with the count at 0 nobody would know of it any more.
    func saveCount() -> UInt32 {
        timer.withLock { state in
            catchUp(&state)
            return currentCount(state)
        }
    }

    /// Takes the timer up where a saved one was: registers are in place, `current` is the count left. A TSC deadline waits for
    /// `setTSCOffset`, without which nobody knows whether it has passed.
    func restoreTimer(current: UInt32, tscDeadline: UInt64) {
        timer.withLock { state in
            let initial = registers[APICRegister.initialCount]
            let isPeriodic = timerEntry & APICLVT.timerPeriodic != 0
            state.initialCount = current == 0 && !isPeriodic ? 0 : initial
            restart(
                &state, count: min(current, initial), divisor: Self.divisor(registers[APICRegister.divideConfiguration])
            )
            guard timerEntry & APICLVT.timerMode == APICLVT.timerTSCDeadline else { return schedule(&state) }
            state.tscDeadline = tscDeadline
        }
    }
}

extension UInt64 {
    /// The sum, or the greatest number if it does not fit.
    @inline(__always)
    func addingSaturated(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}
