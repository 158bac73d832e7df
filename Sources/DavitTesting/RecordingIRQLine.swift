import MachineModel
import Synchronization

/// An interrupt line that leads nowhere and remembers what happened on it.
public final class RecordingIRQLine: IRQLine {
    private struct State {
        var level = false
        var edges: [Bool] = []
    }

    /// Guards the level and the record.
    private let state = Mutex(State())

    public init() {}

    public func set(_ level: Bool) {
        state.withLock { state in
            guard level != state.level else { return }
            state.level = level
            state.edges.append(level)
        }
    }

    /// Whether the line is raised.
    public var level: Bool { state.withLock { $0.level } }

    /// Every change of level so far, true for a rising edge.
    public var edges: [Bool] { state.withLock { $0.edges } }

    /// How often the line went from low to high.
    public var risingEdges: Int { state.withLock { $0.edges.count { $0 } } }

    /// Forgets the record but not the level.
    public func clear() { state.withLock { $0.edges.removeAll() } }
}
