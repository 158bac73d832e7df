import MachineModel
import Synchronization

/// Several devices on one interrupt input: it is raised while any of them raises its own end (COM1 and COM3, or all
/// users of SCI).
public final class SharedIRQLine: Sendable {
    private struct State {
        var raised: UInt64 = 0
        var ends = 0
    }

    private let line: any IRQLine
    /// Guards which ends are raised, and that the line follows them in order.
    private let state = Mutex(State())

    public init(_ line: any IRQLine) { self.line = line }

    /// A new end for one device; there can be 64.
    public func makeEnd() -> any IRQLine {
        let index = state.withLock { state in
            precondition(state.ends < 64, "64 devices on one interrupt line")
            state.ends += 1
            return state.ends - 1
        }
        return End(shared: self, bit: 1 << UInt64(index))
    }

    private func set(_ bit: UInt64, _ level: Bool) {
        state.withLock { state in
            let before = state.raised != 0
            state.raised = level ? state.raised | bit : state.raised & ~bit
            let after = state.raised != 0
            if before != after { line.set(after) }
        }
    }

    private final class End: IRQLine {
        let shared: SharedIRQLine
        let bit: UInt64

        init(shared: SharedIRQLine, bit: UInt64) {
            self.shared = shared
            self.bit = bit
        }

        func set(_ level: Bool) { shared.set(bit, level) }
    }
}
