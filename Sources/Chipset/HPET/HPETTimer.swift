/// One comparator of the HPET.
struct HPETTimer: Equatable, Sendable, Codable {
    /// The writable bits of its configuration register.
    var configuration: UInt64 = 0
    var comparator: UInt64 = .max
    /// What a periodic timer adds to the comparator at each match; 0 until it is written.
    var period: UInt64 = 0

    var isPeriodic: Bool { configuration & HPETTimerConfiguration.periodic != 0 }
    var isLevel: Bool { configuration & HPETTimerConfiguration.level != 0 }
    var isEnabled: Bool { configuration & HPETTimerConfiguration.enable != 0 }
    /// Ones in the bits that are compared.
    var mask: UInt64 { configuration & HPETTimerConfiguration.mode32 != 0 ? 0xFFFF_FFFF : .max }

    /// Ticks from `counter` to the next match, at least one: a comparator that equals the counter has matched already.
    func distance(from counter: UInt64) -> UInt64 {
        let distance = (comparator &- counter) & mask
        // A whole turn is one tick longer than the mask; of 64 bits, nobody waits for it.
        return distance != 0 ? distance : mask == .max ? .max : mask &+ 1
    }

    /// Moves over the `elapsed` ticks since the counter stood at `counter`; returns whether there was a match. Several in a periodic
    /// timer count as one, so that a paused machine is not met by a storm.
    mutating func advance(from counter: UInt64, elapsed: UInt64) -> Bool {
        let first = distance(from: counter)
        guard elapsed >= first else { return false }
        if isPeriodic, period & mask != 0 {
            let matches = (elapsed &- first) / (period & mask) &+ 1
            comparator = (comparator &+ matches &* (period & mask)) & mask
        }
        return true
    }
}
