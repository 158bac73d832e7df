import MachineModel
import Synchronization

/// A function's MSI-X table and pending bits (PCI 3.0, 6.8.2), as a memory BAR of their own: the table from offset 0 on, the pending
/// bits in the second half.
public final class MSIXTable: MMIODevice {
    private struct Entry: Sendable {
        var address: UInt64 = 0
        var data: UInt32 = 0
        var isMasked = true
        var isPending = false
        /// From when it is unmasked for the first time, if there is one.
        var route: (any InterruptRoute)?

        var message: InterruptMessage { InterruptMessage(address: address, data: data) }
    }

    private struct State: Sendable {
        var entries: [Entry]
        var isEnabled = false
        var isFunctionMasked = false
    }

    /// A table's most vectors.
    public static let maximumCount = 2048
    private static let entrySize: UInt64 = 16

    public let count: Int
    /// Of the BAR, in bytes.
    let size: UInt64
    let pendingOffset: UInt64
    private let bus: any InterruptMessageReceiver
    /// Guards the table. Held while a message is delivered, which takes no device's lock.
    private let state: Mutex<State>

    /// `count` vectors, 1 to 2048.
    public init(count: Int, bus: any InterruptMessageReceiver) {
        precondition((1...Self.maximumCount).contains(count), "an MSI-X table has 1 to 2048 vectors")
        self.count = count
        self.bus = bus
        var half: UInt64 = 2048
        while half < UInt64(count) * Self.entrySize { half *= 2 }
        pendingOffset = half
        size = half * 2
        state = Mutex(State(entries: [Entry](repeating: Entry(), count: count)))
    }

    public var isEnabled: Bool { state.withLock { $0.isEnabled } }

    /// Sends a vector's message, now or when it is unmasked. Nothing happens while MSI-X is off, or if there is no such vector.
    public func send(_ vector: Int) {
        state.withLock { state in
            guard state.isEnabled, state.entries.indices.contains(vector) else { return }
            state.entries[vector].isPending = true
            deliverPending(&state, vector)
        }
    }

    /// What message control says.
    func setControl(isEnabled: Bool, isFunctionMasked: Bool) {
        state.withLock { state in
            state.isEnabled = isEnabled
            state.isFunctionMasked = isFunctionMasked
            guard isEnabled, !isFunctionMasked else { return }
            for vector in state.entries.indices { deliverPending(&state, vector) }
        }
    }

    private func deliverPending(_ state: inout State, _ vector: Int) {
        let entry = state.entries[vector]
        guard state.isEnabled, !state.isFunctionMasked, entry.isPending, !entry.isMasked else { return }
        state.entries[vector].isPending = false
        if let route = entry.route { route.send() } else { bus.deliver(entry.message) }
    }

    /// Four or eight bytes, aligned (6.8.2: others are undefined); all else reads as zero.
    public func readMMIO(offset: UInt64, width: AccessWidth) -> UInt64 {
        guard width.bytes >= 4, offset & UInt64(width.bytes - 1) == 0 else { return 0 }
        return state.withLock { state in
            let low = UInt64(read(state, offset))
            return width == .eight ? low | UInt64(read(state, offset &+ 4)) << 32 : low
        }
    }

    public func writeMMIO(offset: UInt64, width: AccessWidth, value: UInt64) {
        guard width.bytes >= 4, offset & UInt64(width.bytes - 1) == 0 else { return }
        state.withLock { state in
            write(&state, offset, UInt32(truncatingIfNeeded: value))
            if width == .eight { write(&state, offset &+ 4, UInt32(truncatingIfNeeded: value >> 32)) }
        }
    }

    private func read(_ state: borrowing State, _ offset: UInt64) -> UInt32 {
        if offset >= pendingOffset {
            let first = (offset &- pendingOffset) &* 8
            return (0..<32).reduce(0) { word, bit in
                let vector = first &+ UInt64(bit)
                let isPending = vector < UInt64(count) && state.entries[Int(vector)].isPending
                return isPending ? word | 1 << UInt32(bit) : word
            }
        }
        let vector = offset / Self.entrySize
        guard vector < UInt64(count) else { return 0 }
        let entry = state.entries[Int(vector)]
        switch offset % Self.entrySize {
        case 0: return UInt32(truncatingIfNeeded: entry.address)
        case 4: return UInt32(truncatingIfNeeded: entry.address >> 32)
        case 8: return entry.data
        default: return entry.isMasked ? 1 : 0
        }
    }

    private func write(_ state: inout State, _ offset: UInt64, _ value: UInt32) {
        let vector = offset / Self.entrySize
        guard vector < UInt64(count) else { return }
        let index = Int(vector)
        switch offset % Self.entrySize {
        case 0: state.entries[index].address = state.entries[index].address & ~0xFFFF_FFFF | UInt64(value & ~3)
        case 4: state.entries[index].address = state.entries[index].address & 0xFFFF_FFFF | UInt64(value) << 32
        case 8: state.entries[index].data = value
        default: state.entries[index].isMasked = value & 1 != 0
        }
        // While it is masked its parts need not fit together.
        guard !state.entries[index].isMasked else { return }
        followRoute(&state, index)
        deliverPending(&state, index)
    }

    private func followRoute(_ state: inout State, _ vector: Int) {
        guard let route = state.entries[vector].route ?? bus.makeRoute() else { return }
        state.entries[vector].route = route.set(state.entries[vector].message) ? route : nil
    }
}
