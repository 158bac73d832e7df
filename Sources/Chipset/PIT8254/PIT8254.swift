// The 8254 programmable interval timer of a PC (Intel 8254 data sheet, September 1993) with port 0x61 of the board around it.
// Modelled: three counters in all six modes, binary and BCD, counter latch and read-back commands; counter 0 raises IRQ 0, counter 2 has its
// gate and output at port 0x61, which also shows counter 1's refresh requests. Left out: the speaker's sound.

import MachineModel
import Synchronization

public final class PIT8254: BytePortDevice {
    /// How close to each other interrupts may come, in nanoseconds, whatever the count: edges between are lost, as they are to a CPU that
    /// is busy. It bounds what a guest can make the clock's thread do. The PIT's usual rates are far below.
    static let shortestPeriod: UInt64 = 50_000

    struct Chip: Sendable {
        /// Gates 0 and 1 are tied high.
        var counters = [PITCounter(gate: true), PITCounter(gate: true), PITCounter(gate: false)]
        var controlB: UInt8 = 0
        var timer: (any VMTimer)?
        /// OUT0 as it was carried to the line last, and when that was, in ticks.
        var output0 = false
        var settledAt: UInt64 = 0
        /// No interrupt before this, in nanoseconds.
        var earliestEdge: UInt64 = 0
    }

    private let irq: any IRQLine
    private let clock: any VMClock
    /// Guards everything that changes. Held while the line is set and the clock's timer is armed, neither of which call back.
    let chip = Mutex(Chip())

    /// If `irq` is a `MaskableIRQLine`, the clock is left alone while nobody would see the interrupt.
    public init(irq: any IRQLine, clock: any VMClock) {
        self.irq = irq
        self.clock = clock
        let timer = clock.makeTimer { [weak self] in self?.timerFired() }
        chip.withLock { $0.timer = timer }
        (irq as? any MaskableIRQLine)?.observeUnmasking { [weak self] in self?.timerFired() }
    }

    /// Now in ticks of the input clock.
    private var ticks: UInt64 { Self.ticks(clock.now) }

    static func ticks(_ nanoseconds: UInt64) -> UInt64 {
        UInt64(1_000_000_000).dividingFullWidth(nanoseconds.multipliedFullWidth(by: PlatformLayout.pitFrequency))
            .quotient
    }

    /// The first nanosecond at which `ticks` says so.
    static func nanoseconds(_ ticks: UInt64) -> UInt64 {
        let product = ticks.multipliedFullWidth(by: 1_000_000_000)
        guard product.high < PlatformLayout.pitFrequency else { return .max }
        let (quotient, remainder) = PlatformLayout.pitFrequency.dividingFullWidth(product)
        return remainder == 0 ? quotient : quotient &+ 1
    }

    // MARK: IRQ 0

    private func timerFired() {
        chip.withLock { settle(&$0, ticks) }
    }

    /// Carries OUT0 to the line: one edge for however many there were since the last time, so that a paused machine is not met by a storm.
    /// Then arms the clock for the next one.
    func settle(_ chip: inout Chip, _ now: UInt64) {
        let rise = chip.counters[0].nextRise(after: chip.settledAt)
        let hasRisen = rise.map { $0 <= now } ?? false
        chip.counters[0].advance(to: now)
        let output = chip.counters[0].output(now)
        // A low phase in between makes the edge.
        if hasRisen, chip.output0 { irq.set(false) }
        if hasRisen || output != chip.output0 { irq.set(hasRisen || output) }
        if hasRisen, !output { irq.set(false) }
        chip.output0 = output
        chip.settledAt = now
        if hasRisen { chip.earliestEdge = clock.now &+ Self.shortestPeriod }
        arm(&chip, now)
    }

    /// After a restore: the line, which has a state of its own, is where it was; only time goes on.
    func resume(_ chip: inout Chip) { settle(&chip, ticks) }

    private func arm(_ chip: inout Chip, _ now: UInt64) {
        let isMasked = (irq as? any MaskableIRQLine)?.isMasked ?? false
        guard !isMasked, let rise = chip.counters[0].nextRise(after: now) else {
            chip.timer?.cancel()
            return
        }
        chip.timer?.arm(at: max(Self.nanoseconds(rise), chip.earliestEdge))
    }

    // MARK: ports 0x40-0x43

    func readByte(offset: UInt16) -> UInt8 {
        guard offset < 3 else { return 0xFF }
        return chip.withLock { $0.counters[Int(offset)].read(now: ticks) }
    }

    func writeByte(offset: UInt16, value: UInt8) {
        guard offset < 4 else { return }
        chip.withLock { chip in
            let now = ticks
            settle(&chip, now)
            if offset < 3 {
                chip.counters[Int(offset)].write(value, now: now)
            } else {
                writeControl(&chip, value, now)
            }
            settle(&chip, now)
        }
    }

    private func writeControl(_ chip: inout Chip, _ word: UInt8, _ now: UInt64) {
        let counter = PITControl.counter(word)
        if counter == PITControl.readBack {
            for i in 0..<3 where PITReadBack.selects(word, i) {
                if word & PITReadBack.noCount == 0 { chip.counters[i].latchCount(now: now) }
                if word & PITReadBack.noStatus == 0 { chip.counters[i].latchStatus(now: now) }
            }
        } else if PITControl.access(word) == PITAccess.latch {
            chip.counters[Int(counter)].latchCount(now: now)
        } else {
            chip.counters[Int(counter)].writeControl(word)
        }
    }

    // MARK: port 0x61

    /// 0x61: gate and output of counter 2, refresh, speaker.
    public var systemControlPort: any PortDevice { ControlPort(pit: self) }

    private func readControlB() -> UInt8 {
        chip.withLock { chip in
            let now = ticks
            chip.counters[2].advance(to: now)
            // Counter 1 asks for a refresh every 18 ticks, whatever it is programmed to: there is no DRAM to refresh.
            return chip.controlB | (now / 18 & 1 != 0 ? SystemControlB.refresh : 0)
                | (chip.counters[2].output(now) ? SystemControlB.output2 : 0)
        }
    }

    private func writeControlB(_ value: UInt8) {
        chip.withLock { chip in
            chip.controlB = value & SystemControlB.writable
            chip.counters[2].setGate(value & SystemControlB.gate2 != 0, now: ticks)
        }
    }

    private final class ControlPort: BytePortDevice {
        let pit: PIT8254

        init(pit: PIT8254) { self.pit = pit }

        func readByte(offset: UInt16) -> UInt8 { offset == 0 ? pit.readControlB() : 0xFF }

        func writeByte(offset: UInt16, value: UInt8) { if offset == 0 { pit.writeControlB(value) } }
    }
}
